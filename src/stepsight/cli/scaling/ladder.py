"""Train models that differ in size, data or what else scales, and forecast a larger one.

Learning rates are tuned first where the ladder says so, then the rungs run, stage by stage: here
(--launcher local), or as job arrays of a SLURM cluster. Starting it again does what is left. With
--held-out the runs that the ladder holds out are forecast from the others, and then made.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepsight import config as configuration
from stepsight.errors import UserError
from stepsight.measures import duration, number
from stepsight.scaling.ladders import ladder as ladders
from stepsight.scaling.ladders import launch
from stepsight.scaling.ladders.forecast import (
    FILE_NAME,
    Target,
    append_forecasts,
    forecasts,
    read_forecasts,
    scored,
)
from stepsight.scaling.ladders.ladder import Ladder, Rung, Stage
from stepsight.scaling.ladders.launch import Job, Outcome
from stepsight.scaling.records import FILE_NAME as RECORDS
from stepsight.scaling.records import read

PROGRAM = "train.py"
DRY = "{:<52}{:>12}{:>12}{:>10}{:>8}"


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("--config", required=True, help="a ladder, such as configs/ladder-depth.yaml")
    own.add_argument("--launcher", choices=("local", "slurm"), default="local")
    own.add_argument("--at-once", type=int, help="rungs at a time on CPUs; default: the ladder's")
    own.add_argument(
        "--held-out", action="store_true", help="forecast the held-out runs, make them"
    )
    own.add_argument(
        "--dry-run", action="store_true", help="list the rungs with their cost, and stop"
    )
    own.add_argument("--program", default=PROGRAM, help="the training program (default: train.py)")


def run(door: argparse.Namespace) -> int:
    """Exit status 1 when rungs failed. Raises UserError for a ladder that cannot be."""
    ladder = ladders.read_ladder(door.config)
    stages = _stages(ladder)
    held_out = ladders.held_out(ladder, stages[-2] if len(stages) > 1 else None)
    short = [one for stage in ladder.stages for one in ladders.tuning_rungs(stage)]
    every = _checked([*short, *(one for rungs in stages for one in rungs), *held_out], door.config)
    if door.held_out and not held_out:
        raise UserError(f"{door.config}: holds no run out. Name some under 'held_out'.")
    if door.dry_run:
        print("\n".join(_table(every)))
        return 0
    if not Path(door.program).is_file():
        raise UserError(f"{door.program} does not exist. Start this where train.py is.")
    if door.at_once is not None and door.at_once < 1:
        raise UserError(f"--at-once {door.at_once}: give a positive number.")
    climb = Climb(ladder, door)
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends the rungs too
    try:
        climb.run()
        if door.held_out:
            climb.hold_out()
    finally:
        signal.signal(signal.SIGTERM, usual)
    return climb.close()


class Climb:
    """A ladder under way: what has run, and what failed."""

    def __init__(self, ladder: Ladder, door: argparse.Namespace) -> None:
        self.ladder, self.door = ladder, door
        self.failed: list[Outcome] = []
        self.parents: list[Rung] | None = None  # what the last stage started from
        self.last: list[Rung] = []  # its rungs
        self.factors: dict[Any, float] = {}

    def run(self) -> None:
        """Every stage after the one it starts from."""
        for stage in self.ladder.stages:
            self.factors = self._tuned(stage)
            parents = self.last or None
            rungs = ladders.rungs(stage, parents, self.factors)
            self.failed += [one for one in self._start(rungs) if one.state != "done"]
            self.parents, self.last = parents, rungs

    def hold_out(self) -> None:
        """Forecast the runs that are held out, before they are made, and make them."""
        if self.failed:
            print("no forecast: it wants all of the ladder, and rungs failed", file=sys.stderr)
            return
        rungs = ladders.held_out(self.ladder, self.parents, self.factors)
        records = read(*(self.ladder.out / rung.name / RECORDS for rung in self.last)).records
        path = self.ladder.out / FILE_NAME
        known = {one.run for one in read_forecasts(path)}
        for rung in rungs:
            if rung.name in known:
                continue
            if (self.ladder.out / rung.name / RECORDS).exists():
                raise UserError(
                    f"{rung.name} has been run, and was not forecast. Hold out another."
                )
            found = list(forecasts(records, _target(rung)))
            if not found:
                raise UserError(f"{len(records)} records do not determine a law: add rungs.")
            append_forecasts(path, found)
        self.failed += [one for one in self._start(rungs) if one.state != "done"]
        self._score(rungs)

    def _score(self, rungs: Sequence[Rung]) -> None:
        files = [self.ladder.out / rung.name / RECORDS for rung in rungs]
        records = read(*(file for file in files if file.is_file())).records
        settled, waiting = scored(read_forecasts(self.ladder.out / FILE_NAME), records)
        for one in settled:
            said = one.forecast
            interval = f"{number(said.lo)} to {number(said.hi)}"
            mark = "inside" if one.inside else "outside"
            print(
                f"{said.run}: {said.task} {said.metric} forecast {number(said.value)} "
                f"({said.level:.0%} interval {interval}), measured {number(one.outcome)}: {mark}, "
                f"off by {one.error:+.1%}"
            )
        for said in waiting:
            print(f"{said.run}: {said.task} {said.metric} waits for its run")

    def close(self) -> int:
        for one in self.failed:
            print(f"{one.state}: {one.name}: {one.why}", file=sys.stderr)
        out = self.ladder.out
        print(f"written to {out}; next: stepsight scaling report {out} --out {out}/report")
        return 1 if self.failed else 0

    def _tuned(self, stage: Stage) -> dict[Any, float]:
        """The factors of the learning rates, from short runs. A factor under which a run fails is
        one that is not chosen; a size of which all fail has failed."""
        rungs = ladders.tuning_rungs(stage)
        found = self._start(rungs)
        losses = {}
        for rung in rungs:
            loss = launch.last_loss(self.ladder.out / rung.name, ladders.images_of(rung.config))
            losses |= {} if loss is None else {rung.name: loss}
        factors = ladders.best_factors(stage, losses)
        for value, factor in factors.items():
            print(f"{value}: learning rates x {factor:g}")
        lost = ladders.untuned(stage, factors)
        self.failed += [
            one
            for rung, one in zip(rungs, found)
            if stage.tune and rung.settings.get(stage.tune.by) in lost
        ]
        return factors

    def _start(self, rungs: Sequence[Rung]) -> list[Outcome]:
        """Run the rungs whose parent is there; what came of each, in their order."""
        _refuse_changed(self.ladder, rungs)
        lost = {one.name for one in self.failed}
        orphans = [rung for rung in rungs if rung.parent in lost]
        jobs = launch.prepare(
            self.ladder, [rung for rung in rungs if rung not in orphans], self.door.program
        )
        by_name = {rung.name: rung for rung in rungs}

        def tell(one: Outcome) -> None:
            launch.write_status(self.ladder, by_name[one.name], one)
            took = duration(one.seconds) if one.seconds else "before"
            print(f"{one.state} {one.name} ({took}){': ' + one.why if one.why else ''}", flush=True)

        left_out = [Outcome(one.name, "left out", why=f"{one.parent} failed") for one in orphans]
        for one in left_out:
            tell(one)
        found = {one.name: one for one in [*left_out, *self._launched(jobs, tell)]}
        return [found[rung.name] for rung in rungs]

    def _launched(self, jobs: Sequence[Job], tell: Callable[[Outcome], None]) -> list[Outcome]:
        if self.door.launcher == "slurm":
            folder = self.ladder.out / "slurm"
            return launch.run_slurm(jobs, folder, dict(self.ladder.slurm), tell)
        return launch.run_local(jobs, self.door.at_once or self.ladder.at_once, tell)


def _refuse_changed(ladder: Ladder, rungs: Sequence[Rung]) -> None:
    """Raise UserError for a rung that was run with other settings than it has now."""
    from stepsight.training.state import differing

    for rung in rungs:
        path = ladder.out / rung.name / "config.yaml"
        if path.is_file():
            before = configuration.load([str(path)])[0]
            if changed := differing(before, configuration.from_dict(rung.config)):
                raise UserError(
                    f"{path.parent} was run with other settings: {', '.join(changed[:4])}. Remove "
                    "that folder, or give the ladder another 'out'."
                )


def _stages(ladder: Ladder) -> list[list[Rung]]:
    """The rungs of every stage, as if all went well."""
    found: list[list[Rung]] = []
    for stage in ladder.stages:
        found.append(ladders.rungs(stage, found[-1] if found else None))
    return found


def _checked(rungs: Sequence[Rung], where: str) -> list[Rung]:
    """The rungs, once all of their configurations are known to be right."""
    for rung in rungs:
        configuration.from_dict(rung.config, f"{where}: {rung.name}")
    return list(rungs)


def _target(rung: Rung) -> Target:
    from stepsight.training.dry_run import describe

    found = describe(configuration.from_dict(rung.config))
    return Target(rung.name, found["params_active"], ladders.images_of(rung.config))


def _table(rungs: Sequence[Rung]) -> list[str]:
    """What each rung would cost."""
    from stepsight.training.dry_run import describe

    lines = [DRY.format("rung", "parameters", "images", "PFLOP", "factor")]
    known: dict[str, dict[str, Any]] = {}  # rungs that differ in images alone are alike
    total = 0.0
    for rung in rungs:
        kind = repr({key: value for key, value in rung.config.items() if key != "training"})
        if kind not in known:
            known[kind] = describe(configuration.from_dict(rung.config))
        images = ladders.images_of(rung.config)
        flops = known[kind]["flops_train_per_image"] * images
        total += flops
        cells = (f"{known[kind]['params_total']:,}", f"{images:,}", f"{flops / 1e15:.4f}")
        lines.append(DRY.format(rung.name, *cells, f"{rung.factor:g}"))
    return [*lines, f"{len(rungs)} runs, {total / 1e15:.3f} PFLOP, learning rates before tuning"]
