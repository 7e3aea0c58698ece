"""Train models that differ in size, data or what else scales, and forecast a larger one.

Learning rates are tuned first where the ladder says so, then the rungs run, stage by stage: here
(--launcher local), or as job arrays of a SLURM cluster. Starting it again does what is left. With
--held-out the runs that the ladder holds out are forecast from the others, and then made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
    stages = [_checked(rungs, door.config) for rungs in _stages(ladder)]
    held_out = _checked(ladders.held_out(ladder, _parents(stages)), door.config)
    if door.held_out and not held_out:
        raise UserError(f"{door.config}: holds no run out. Name some under 'held_out'.")
    if door.dry_run:
        print("\n".join(_table([*(one for rungs in stages for one in rungs), *held_out])))
        return 0
    if not Path(door.program).is_file():
        raise UserError(f"{door.program} does not exist. Start this where train.py is.")
    if door.at_once is not None and door.at_once < 1:
        raise UserError(f"--at-once {door.at_once}: give a positive number.")
    climb = Climb(ladder, door)
    climb.run()
    if door.held_out and not climb.failed:
        climb.hold_out()
    return climb.close()


class Climb:
    """A ladder under way: what has run, and what failed."""

    def __init__(self, ladder: Ladder, door: argparse.Namespace) -> None:
        self.ladder, self.door = ladder, door
        self.failed: list[Outcome] = []
        self.parents: list[Rung] = []  # what the last stage started from
        self.last: list[Rung] = []  # its rungs
        self.factors: dict[Any, float] = {}

    def run(self) -> None:
        """Every stage after the one it starts from."""
        parents: list[Rung] = []
        for stage in self.ladder.stages:
            self.factors = self._tuned(stage)
            rungs = ladders.rungs(stage, parents, self.factors)
            done = self._start(rungs)
            self.parents, self.last = parents, rungs
            parents = [rung for rung, one in zip(rungs, done) if one.state == "done"]

    def hold_out(self) -> None:
        """Forecast the runs that are held out, before they are made, and make them."""
        rungs = ladders.held_out(self.ladder, self.parents, self.factors)
        records = read(*(self.ladder.out / rung.name / RECORDS for rung in self.last)).records
        path = self.ladder.out / FILE_NAME
        known = {one.run for one in read_forecasts(path)}
        for rung in rungs:
            if rung.name in known:
                continue
            found = list(forecasts(records, _target(rung)))
            if not found:
                raise UserError(f"{len(records)} records do not determine a law: add rungs.")
            append_forecasts(path, found)
        self._start(rungs)
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
            print(f"failed: {one.name}: {one.why}", file=sys.stderr)
        out = self.ladder.out
        print(f"written to {out}; next: stepsight scaling report {out} --out {out}/report")
        return 1 if self.failed else 0

    def _tuned(self, stage: Stage) -> dict[Any, float]:
        """The factors of the learning rates, from short runs."""
        rungs = ladders.tuning_rungs(stage)
        if not rungs:
            return {}
        self._start(rungs)
        losses = {}
        for rung in rungs:
            found = ladders.last_loss(self.ladder.out / rung.name, ladders.images_of(rung.config))
            losses |= {} if found is None else {rung.name: found}
        factors = ladders.best_factors(stage, losses)
        for value, factor in factors.items():
            print(f"{value}: learning rates x {factor:g}")
        return factors

    def _start(self, rungs: Sequence[Rung]) -> list[Outcome]:
        jobs = launch.prepare(self.ladder, rungs, self.door.program)
        found = self._launched(jobs)
        launch.write_status(self.ladder, rungs, found)
        self.failed += [one for one in found if one.state == "failed"]
        return found

    def _launched(self, jobs: Sequence[Job]) -> list[Outcome]:
        if self.door.launcher == "slurm":
            folder = self.ladder.out / "slurm"
            return launch.run_slurm(jobs, folder, dict(self.ladder.slurm), _tell)
        return launch.run_local(jobs, self.door.at_once or self.ladder.at_once, _tell)


def _tell(one: Outcome) -> None:
    took = duration(one.seconds) if one.seconds else "before"
    print(f"{one.state} {one.name} ({took}){': ' + one.why if one.why else ''}", flush=True)


def _stages(ladder: Ladder) -> list[list[Rung]]:
    """The rungs of every stage, as if all went well."""
    found: list[list[Rung]] = []
    for stage in ladder.stages:
        found.append(ladders.rungs(stage, found[-1] if found else ()))
    return found


def _parents(stages: Sequence[Sequence[Rung]]) -> Sequence[Rung]:
    return stages[-2] if len(stages) > 1 else ()


def _checked(rungs: Sequence[Rung], where: str) -> Sequence[Rung]:
    """The rungs, once all of their configurations are known to be right."""
    for rung in rungs:
        configuration.from_dict(rung.config, f"{where}: {rung.name}")
    return rungs


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
