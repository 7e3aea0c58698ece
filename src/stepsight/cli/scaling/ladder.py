"""`stepsight scaling ladder`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stepsight import config as configuration
from stepsight import signals
from stepsight.cli.entry import at_least
from stepsight.cli.scaling import ladder_costs
from stepsight.config.files import find
from stepsight.errors import UserError
from stepsight.measures import duration, number
from stepsight.scaling.ladders import jobs as running
from stepsight.scaling.ladders import ladder as ladders
from stepsight.scaling.ladders import launch, tuning
from stepsight.scaling.ladders.file import read_ladder
from stepsight.scaling.ladders.forecast import (
    FILE_NAME,
    Forecast,
    ForecastTarget,
    append_forecasts,
    forecasts,
    read_forecasts,
    scored,
    trunks_of,
)
from stepsight.scaling.ladders.jobs import JobOutcome
from stepsight.scaling.ladders.ladder import Ladder, LadderStage, Rung
from stepsight.scaling.ladders.launch import RungJob
from stepsight.scaling.ladders.noise import scatter
from stepsight.scaling.records import FILE_NAME as RECORDS
from stepsight.scaling.records import ScalingRecord, read

PROGRAM = "train.py"


@dataclass(frozen=True)
class Args:
    """Train models that differ in size, data or what else scales, and forecast a larger one.

    Learning rates are tuned first where the ladder says so, then the rungs run, stage by stage:
    here (--launcher local), or as job arrays of a SLURM cluster. Starting it again does what is
    left. With --held-out the runs that the ladder holds out are forecast from the others, and then
    made; with --forecast they are forecast, so that the forecast can be published before.
    """

    config: str  # a ladder, such as configs/ladder-depth.yaml
    launcher: Literal["local", "slurm"] = "local"  # here, or as job arrays of a cluster
    at_once: int | None = None  # rungs at a time on CPUs; default: the ladder's
    forecast: bool = False  # forecast the held-out runs
    held_out: bool = False  # forecast the held-out runs, where they are not, and make them
    dry_run: bool = False  # list the rungs with their cost, and stop
    program: str = PROGRAM  # the training program; without the file, `stepsight train`


def run(args: Args) -> int:
    """Exit status 1 when rungs failed. Raises UserError for a ladder that cannot be, and Preempted
    when a signal ended it or one of its rungs, which have saved."""
    ladder = read_ladder(str(find(args.config)))
    plan = _plan(ladder)
    for rung in (*plan.rungs, *plan.held_out):
        configuration.from_dict(rung.config, f"{args.config}: {rung.name}")
    if (args.held_out or args.forecast) and not plan.held_out:
        raise UserError(
            f"{args.config}: 'held_out' lists no runs, which --forecast or --held-out are about."
        )
    if args.dry_run:
        print("\n".join(ladder_costs.table(*plan)))
        return 0
    if args.program != PROGRAM and not Path(args.program).is_file():
        raise UserError(f"--program {args.program} does not exist. Name a training program.")
    at_least(1, "--at-once", args.at_once)
    climb = Climb(ladder, args)
    with signals.caught():
        climb.run()
        if args.forecast or args.held_out:
            climb.hold_out(make=args.held_out)
    return climb.close(plan)


class Climb:
    """A ladder under way: what has run, and what failed."""

    def __init__(self, ladder: Ladder, args: Args) -> None:
        self.ladder, self.args = ladder, args
        self.program = args.program if Path(args.program).is_file() else None
        self.failed: list[JobOutcome] = []
        self.parents: list[Rung] | None = None  # what the last stage started from
        self.last: list[Rung] = []  # its rungs
        self.factors: dict[Any, float] = {}

    def run(self) -> None:
        """Every stage after the one it starts from."""
        for stage in self.ladder.stages:
            self.factors = self._tuned(stage)
            self.parents = ladders.upcycled(stage, self.last or None)
            self._start_all([rung for rung in self.parents or () if rung.experts])
            self.last = ladders.rungs(stage, self.parents, self.factors)
            self._start_all(self.last)

    def hold_out(self, make: bool) -> None:
        """Forecast the runs that are held out, before they are made, and make them."""
        if self.failed:
            print("forecast skipped: some runs of the ladder failed", file=sys.stderr)
            return
        rungs = tuning.held_out(self.ladder, self.parents, self.factors)
        records = self._records()
        path = self.ladder.out / FILE_NAME
        known = {forecast.run for forecast in read_forecasts(path)}
        trunks = trunks_of((rung.name, rung.trunk) for rung in self.last)
        cost = ladder_costs.flops(_plan(self.ladder).rungs)
        for rung in rungs:
            if rung.name in known:
                continue
            if (folder := self.ladder.out / rung.name).exists():
                raise UserError(f"{folder} has been run, and was not forecast. Hold out another.")
            share = cost / ladder_costs.flops([rung])
            made = list(forecasts(records, _target(rung), trunks=trunks, spent=share))
            if not made:
                raise UserError(f"{len(records)} records do not determine a law: add rungs.")
            append_forecasts(path, made)
        if make:
            self._start_all(rungs)
        self._score(rungs)

    def _score(self, rungs: Sequence[Rung]) -> None:
        files = [self.ladder.out / rung.name / RECORDS for rung in rungs]
        records = read(*(file for file in files if file.is_file())).records
        settled, waiting = scored(read_forecasts(self.ladder.out / FILE_NAME), records)
        for score in settled:
            mark = "inside" if score.inside else "outside"
            outcome = f"measured {number(score.outcome)}: {mark}, off by {score.error:+.1%}"
            print(f"{_words(score.forecast)}, {outcome}")
        for forecast in waiting:
            print(f"{_words(forecast)}, waits for its run")

    def close(self, plan: LadderPlan) -> int:
        """Say what failed, what it took, and what is next; the exit status."""
        for outcome in self.failed:
            print(f"{outcome.state}: {outcome.name}: {outcome.why}", file=sys.stderr)
        out = self.ladder.out
        for quantity, found in scatter(self._records()).items():
            print(
                f"{quantity}: seeds scatter by {found.deviation:.1%} ({found.runs} runs at "
                f"{found.places} {'place' if found.places == 1 else 'places'})"
            )
        status = launch.read_status(out)
        took = [f"{ladder_costs.spent(status, rungs):,.0f}" for rungs in plan]
        held_out = f", {took[1]} for what is held out" if plan.held_out else ""
        print(f"core-seconds so far: {took[0]} for the ladder{held_out}")
        print(*ladder_costs.share(*plan), sep="\n", end="\n" if plan.held_out else "")
        print(f"written to {out}; next: stepsight scaling report {out} --out {out}/report")
        return 1 if self.failed else 0

    def _records(self) -> list[ScalingRecord]:
        """Of the last stage's rungs, as far as they have run."""
        files = (self.ladder.out / rung.name / RECORDS for rung in self.last)
        return read(*filter(Path.is_file, files)).records

    def _tuned(self, stage: LadderStage) -> dict[Any, float]:
        """The factors of the learning rates, from short runs. A factor under which a run fails is
        one that is not chosen; a size of which all fail has failed."""
        rungs = tuning.tuning_rungs(stage)
        outcomes = self._start(rungs)
        losses = {}
        for rung in rungs:
            loss = launch.last_loss(self.ladder.out / rung.name, ladders.images_of(rung.config))
            losses |= {} if loss is None else {rung.name: loss}
        factors = tuning.best_factors(stage, losses)
        for value, factor in factors.items():
            end = tuning.at_an_end(stage, factor)
            print(f"{value}: learning rates x {factor:g}{f', {end}' if end else ''}")
        lost = tuning.untuned(stage, factors)
        self.failed += [
            outcome
            for rung, outcome in zip(rungs, outcomes)
            if stage.tune and rung.settings.get(stage.tune.by) in lost
        ]
        return factors

    def _start_all(self, rungs: Sequence[Rung]) -> None:
        self.failed += [outcome for outcome in self._start(rungs) if outcome.state != "done"]

    def _start(self, rungs: Sequence[Rung]) -> list[JobOutcome]:
        """Run the rungs whose parent is there; what came of each, in their order."""
        _refuse_changed(self.ladder, rungs)
        lost = {outcome.name for outcome in self.failed}
        orphans = [rung for rung in rungs if rung.parent in lost]
        started = [rung for rung in rungs if rung not in orphans]
        jobs = launch.prepare(self.ladder, started, self.program)
        by_name = {rung.name: rung for rung in rungs}

        def note(outcome: JobOutcome) -> None:
            launch.write_status(self.ladder, by_name[outcome.name], outcome)
            took = duration(outcome.seconds) if outcome.seconds else "before"
            why = f": {outcome.why}" if outcome.why else ""
            print(f"{outcome.state} {outcome.name} ({took}){why}", flush=True)

        left_out = [
            JobOutcome(rung.name, "left out", why=f"{rung.parent} failed") for rung in orphans
        ]
        for outcome in left_out:
            note(outcome)
        made = self._launched(jobs, note)
        if stopped := [outcome.name for outcome in made if outcome.state == "preempted"]:
            raise signals.Preempted(f"{', '.join(stopped)}: {running.GOES_ON}")
        outcomes = {outcome.name: outcome for outcome in [*left_out, *made]}
        return [outcomes[rung.name] for rung in rungs]

    def _launched(
        self, jobs: Sequence[RungJob], note: Callable[[JobOutcome], None]
    ) -> list[JobOutcome]:
        if self.args.launcher == "slurm":
            folder = self.ladder.out / "slurm"
            return running.run_slurm(jobs, folder, dict(self.ladder.slurm), note)
        return running.run_local(jobs, self.args.at_once or self.ladder.at_once, note)


def _words(forecast: Forecast) -> str:
    """What was forecast, and when."""
    interval = f"{forecast.level:.0%} interval {number(forecast.lo)} to {number(forecast.hi)}"
    what = f"{forecast.run}: {forecast.task} {forecast.metric}"
    return f"{what} forecast {number(forecast.value)} ({interval}; {forecast.made})"


def _refuse_changed(ladder: Ladder, rungs: Sequence[Rung]) -> None:
    """Raise UserError for a rung that was run with other settings than it has now."""
    from stepsight.training.progress import differing

    for rung in rungs:
        path = ladder.out / rung.name / "config.yaml"
        if path.is_file() and rung.experts is None:
            before = configuration.load([str(path)])
            if changed := differing(before, configuration.from_dict(rung.config)):
                raise UserError(
                    f"{path.parent} was run with other settings: {', '.join(changed[:4])}. Remove "
                    "that folder, or give the ladder another 'out'."
                )


class LadderPlan(NamedTuple):
    """All rungs of a ladder, as if all went well."""

    rungs: list[Rung]  # those that tune rates, and every stage's
    held_out: list[Rung]


def _plan(ladder: Ladder) -> LadderPlan:
    rungs: list[Rung] = []
    parents: list[Rung] | None = None
    last: list[Rung] | None = None
    for stage in ladder.stages:
        parents = ladders.upcycled(stage, last)
        last = ladders.rungs(stage, parents)
        made = [rung for rung in parents or () if rung.experts]
        rungs += [*tuning.tuning_rungs(stage), *made, *last]
    return LadderPlan(rungs, tuning.held_out(ladder, parents))


def _target(rung: Rung) -> ForecastTarget:
    params = ladder_costs.described(rung)["params_active"]
    return ForecastTarget(rung.name, params, ladders.images_of(rung.config))
