"""A budget in place of settings: what a measured sweep says is best for it.

The sweep of a run lies in its folder, at `sweep/sweep.csv`. Its numbers hold for the model they
were measured with, and its milliseconds for the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError, command
from stepsight.pipeline.config import OWN, STEPSIGHT, Profile
from stepsight.scaling.sampling.sweeps import Cell, main_of, read_sweep

if TYPE_CHECKING:
    from stepsight.scaling.sampling.planner import Plan

SWEEP = Path("sweep", "sweep.csv")  # in a run folder


def plan_budget(
    task: str,
    budget: str,
    home: Path | None,
    sweep: str | Path | None,
    weights: str,
    profile: Profile = STEPSIGHT,
) -> Plan:
    """The setting to run `task` at for `budget`, "16nfe", "50gflop" or "200ms" per image.

    home: the run folder of the model. sweep: a sweep.csv, where the run's own is not meant.
    weights: digest of those that will run, under `profile`; cells of others are not planned with. A
    plan takes seconds, so that it is kept for the next image until the file changes. Raises
    UserError where there is no sweep, or none of this model.
    """
    file = _sweep_file(home, sweep)
    version = (file.stat().st_mtime_ns, file.stat().st_ino) if file.is_file() else None
    return _plan(task, budget, weights, "" if profile.own else profile.id, file, version)


@lru_cache(maxsize=64)
def _plan(
    task: str, budget: str, weights: str, profile: str, file: Path, version: tuple[int, int] | None
) -> Plan:
    """`plan_budget` of one version of a file."""
    # scipy: only when there is a budget
    from stepsight.scaling.sampling.images import tables_beside
    from stepsight.scaling.sampling.planner import plan

    cells = _of_profile(_of_weights(read_sweep(file), weights), profile)
    metric = main_of(cells, task)
    main = [cell for cell in cells if (cell.task, cell.metric) == (task, metric)]
    return plan(cells, task, budget, tables=tables_beside(file, main))


def sampling_options(plan: Plan, task: str, used: DiffusionSettings) -> dict[str, Any]:
    """The arguments of `DensePipeline.sampling` that make it do as the setting of a plan did; None
    where it does so already, as naming a spacing or a schedule sets its shift as well.

    A sweep without a column `checkpoint` is an early one, whose schedule is the trained one.
    Temperature and views are always named, as a run's own may be others by now.
    """
    usual = {used.sampling_schedule, *([] if plan.checkpoint else [used.schedule])}
    return {
        "sampler": plan.sampler,
        "spacing": None if plan.spacing == used.spacing else plan.spacing,
        "schedule": None if plan.schedule in usual else plan.schedule,
        "temperature": float(plan.temperature),
        "views": plan.views,
        "merge": {task: plan.merge} if plan.merge else None,
    }


def check_budget(budget: str | None, sweep: str | Path | None, **options: Any) -> None:
    """Raise UserError for options that are given although a budget sets them all, and for a sweep
    that no budget reads."""
    given = [name for name, value in options.items() if value is not None]
    if budget is None and sweep is not None:
        raise UserError("a sweep is only read to plan a budget (budget=..., --budget 16nfe).")
    if budget is not None and given:
        raise UserError(
            f"a budget sets {', '.join(options)} itself: leave out {', '.join(given)}, or the "
            f"budget."
        )


def _sweep_file(home: Path | None, sweep: str | Path | None) -> Path:
    """The file named, else the run's own."""
    if sweep is not None:
        return Path(sweep)
    if home is None:
        raise UserError(
            "a budget needs a sweep, and this model was not opened from a run folder. Name the"
            " sweep.csv of an earlier sweep (sweep=..., --sweep FILE)."
        )
    if not (home / SWEEP).is_file():
        raise UserError(
            f"a budget needs a sweep, and {home / SWEEP} does not exist. Make it with "
            f"`{command('evaluate', '--checkpoint', home, '--sweep')}`, or name another "
            "(sweep=..., --sweep FILE)."
        )
    return home / SWEEP


def _of_weights(cells: Sequence[Cell], weights: str) -> list[Cell]:
    """The cells of these weights; all of them where a file does not say whose they are."""
    if {cell.weights for cell in cells} <= {""}:
        return list(cells)
    fitting = [cell for cell in cells if cell.weights == weights]
    if not fitting:
        known = ", ".join(sorted({cell.checkpoint for cell in cells}))
        raise UserError(
            f"the sweep is of {known}, whose weights are not those of this model. Sweep this one "
            f"with `{command('evaluate', '--sweep')}`, or name the sweep.csv of these weights "
            "(sweep=..., --sweep)."
        )
    return fitting


def _of_profile(cells: Sequence[Cell], profile: str) -> list[Cell]:
    """The cells that were measured under the profile of that id; "": stepsight's."""
    fitting = [cell for cell in cells if cell.protocol.partition("+")[2] == profile]
    if not fitting:
        sweep = command("evaluate", "--sweep", "--profile", "published" if profile else OWN)
        raise UserError(
            f"the sweep was not measured under the profile {profile or OWN}, which is asked for. "
            f"Sweep with `{sweep}`."
        )
    return fitting
