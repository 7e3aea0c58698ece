"""`stepsight scaling frontier`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

from stepsight.cli.entry import exactly_one, one_of
from stepsight.cli.scaling.tables import Table
from stepsight.errors import UserError
from stepsight.measures import measure, number
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.axes import axis_verdicts, surfaces
from stepsight.scaling.sampling.frontier import COSTS, ascending, frontier
from stepsight.scaling.sampling.images import tables_beside
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.sweeps import (
    Family,
    left_out,
    main_metrics,
    main_of,
    read_sweep,
)
from stepsight.scaling.sampling.wording import count

UNPAIRED = (
    "intervals of gains from the table alone are too wide: without the images beside it "
    "(per_sample.csv) settings are taken for measured on different ones"
)


@dataclass(frozen=True)
class Args:
    """The settings that no other beats in both cost and error, and what each axis is worth.

    Of a sweep, or with --csv of any table of points: a column of costs, one of errors (lower is
    better), and, for the verdicts, columns of steps, of members, and of what tells models apart.
    """

    sweep: Path | None = None  # sweep.csv of evaluate.py --sweep
    csv: Path | None = None  # a table of points instead
    task: str | None = None  # with --sweep: only this task
    cost: Annotated[str, arg(help=f"with --sweep: one of {', '.join(COSTS)}")] = "calls"
    x: str | None = None  # with --csv: column of costs
    y: str | None = None  # with --csv: column of errors
    steps: str | None = None  # with --csv: column of steps
    members: str | None = None  # with --csv: column of members
    by: str | None = None  # with --csv: column of models
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the frontier and the verdicts. Raises UserError where there is nothing to compare."""
    one_of("--cost", args.cost, list(COSTS))
    source = exactly_one(args, "sweep", "csv")
    frontiers = [_published(args)] if source == "csv" else _swept(args)
    if args.json:
        print(json.dumps(frontiers, indent=2))
    else:
        for shown in frontiers:
            _print(shown)
    return 0


def _swept(args: Args) -> list[dict[str, Any]]:
    cells = read_sweep(str(args.sweep))
    tasks = [args.task] if args.task else list(main_metrics(cells))
    of_tasks = [cell for cell in cells if cell.task in tasks]
    main = main_metrics(of_tasks)
    tables = tables_beside(
        Path(str(args.sweep)), [cell for cell in of_tasks if cell.metric == main.get(cell.task)]
    )
    return [
        {
            "name": task,
            "metric": main_of(cells, task),
            "cost": args.cost,
            "left_out": left_out(cells, task, main_of(cells, task), COSTS[args.cost]),
            "points": [
                point.to_dict() for point in frontier(cells, task, cost=args.cost, tables=tables)
            ],
            "families": surfaces(of_tasks)[task]["families"],
        }
        for task in tasks
    ]


def _published(args: Args) -> dict[str, Any]:
    if not (args.x and args.y):
        raise UserError("--csv needs --x, a column of costs, and --y, a column of errors.")
    table = Table.read(args.csv)
    cost, error = table.positive(args.x), table.positive(args.y)
    models = table.texts(args.by) if args.by else [""] * len(cost)
    axes = [_counts(table, c) if c else np.ones(len(cost)) for c in (args.steps, args.members)]
    settings = [(int(steps), int(members)) for steps, members in zip(*axes)]
    order = ascending(cost, error)
    gains = [math.nan, *(1 - error[i] / error[j] for j, i in zip(order, order[1:]))]
    points = [
        {
            "checkpoint": models[i],
            "nfe": settings[i][0],
            "members": settings[i][1],
            "cost": float(cost[i]),
            "value": float(error[i]),
            "gain": float(gain),
        }
        for i, gain in zip(order, gains)
    ]
    families = [
        {"checkpoint": model, "dials": [asdict(axis) for axis in axis_verdicts(curve)]}
        for model, curve in _curves(models, settings, error.tolist()).items()
    ]
    about = {"name": Path(table.path).stem, "metric": args.y, "cost": args.x}
    return plain(about | {"points": points, "families": families})


def _counts(table: Table, name: str) -> np.ndarray:
    return table.checked(name, lambda n: n >= 1 and n.is_integer(), "a whole number from 1 on")


def _curves(
    models: Sequence[str], settings: Sequence[Setting], errors: Sequence[float]
) -> dict[str, dict[Setting, float]]:
    """Errors by setting, by model."""
    curves: dict[str, dict[Setting, float]] = {model: {} for model in models}
    for model, (steps, members), error in zip(models, settings, errors):
        if (steps, members) in curves[model]:
            raise UserError(
                f"Several points of {model or 'the table'} have {steps} steps and {members} "
                "members. Name the columns that differ with --steps, --members, --by."
            )
        curves[model][steps, members] = error
    return curves


def _print(shown: dict[str, Any]) -> None:
    """The frontier as a table, the cheapest first, and the verdicts below it."""
    from rich.console import Console
    from rich.table import Table

    columns = "model", "sampling", "NFE x members", shown["cost"], shown["metric"], "gain"
    table = Table(*columns, "95 % interval")
    for point in shown["points"]:
        family = Family.of(point | {"checkpoint": "", "size": ""})
        sampling = str(family) if "sampler" in point else ""
        gain = "" if point["gain"] is None else f"{point['gain']:.1%}"
        interval = _interval(point)
        setting = f"{point['nfe']} x {point['members']}"
        cells = (f"{point['cost']:.4g}", number(point["value"]), gain, interval)
        table.add_row(point["checkpoint"], sampling, setting, *cells)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{shown['name']}: {measure(shown['metric']).label} worth its cost")
    console.print(table)
    if any(not point.get("paired", True) for point in shown["points"][1:]):
        console.print(f"  {UNPAIRED}")
    for row in shown.get("left_out", []):
        console.print(f"  left out: {row}")
    for family in shown["families"]:
        console.print(f"  {_verdicts(family)}")
    console.print()


def _interval(point: dict[str, Any]) -> str:
    """That of a gain, and whether it may be luck; of a table without intervals there is none."""
    if point["gain"] is None or point.get("gain_lo") is None:
        return ""
    luck = "" if point["sure"] else ", may be luck"
    return f"{point['gain_lo']:.1%} to {point['gain_hi']:.1%}{luck}"


def _verdicts(family: dict[str, Any]) -> str:
    name = str(Family.of(family)) if "sampler" in family else family["checkpoint"]
    parts = []
    for axis in family["dials"]:
        at = axis["at"]
        walked = f"steps at {count(at, 'member')}"
        walked = f"members at NFE {at}" if axis["dial"] == "members" else walked
        parts.append(f"{walked} {axis['verdict']} ({axis['gain']:+.1%})")
    parts += [f"both {family['verdict']}"] if "verdict" in family else []
    return f"{name}: {'; '.join(parts)}".removeprefix(": ")
