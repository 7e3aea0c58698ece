"""The settings that no other beats in both cost and error, and what each dial is worth.

Of a sweep, or with --csv of any table of points: a column of costs, one of errors (lower is
better), and, for the verdicts, columns of steps, of members, and of what tells models apart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepsight.cli.scaling.tables import Rows, numbers, read_table, texts
from stepsight.errors import UserError
from stepsight.measures import measure, number
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.axes import dials, surfaces
from stepsight.scaling.sampling.frontier import COSTS, ascending, frontier
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.sweeps import (
    Family,
    main_metrics,
    main_of,
    read_sweep,
    unmeasured,
)
from stepsight.scaling.sampling.wording import count


def add_flags(own: argparse.ArgumentParser) -> None:
    source = own.add_mutually_exclusive_group(required=True)
    source.add_argument("--sweep", type=Path, help="sweep.csv of evaluate.py --sweep")
    source.add_argument("--csv", type=Path, help="a table of points instead")
    own.add_argument("--task", help="with --sweep: only this task")
    own.add_argument("--cost", choices=list(COSTS), default="calls", help="with --sweep")
    own.add_argument("--x", help="with --csv: column of costs")
    own.add_argument("--y", help="with --csv: column of errors")
    own.add_argument("--steps", help="with --csv: column of steps")
    own.add_argument("--members", help="with --csv: column of members")
    own.add_argument("--by", help="with --csv: column of models")
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the frontier and the verdicts. Raises UserError where there is nothing to compare."""
    found = _published(door) if door.csv else _swept(door)
    if door.json:
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            _print(one)
    return 0


def _swept(door: argparse.Namespace) -> list[dict[str, Any]]:
    cells = read_sweep(door.sweep)
    tasks = [door.task] if door.task else list(main_metrics(cells))
    own = [cell for cell in cells if cell.task in tasks]
    return [
        {
            "name": task,
            "metric": main_of(cells, task),
            "cost": door.cost,
            "unmeasured": unmeasured(cells, task, main_of(cells, task)),
            "points": [point.to_dict() for point in frontier(cells, task, cost=door.cost)],
            "families": surfaces(own)[task]["families"],
        }
        for task in tasks
    ]


def _published(door: argparse.Namespace) -> list[dict[str, Any]]:
    if not (door.x and door.y):
        raise UserError("--csv needs --x, a column of costs, and --y, a column of errors.")
    rows = read_table(door.csv)
    cost, error = numbers(door.csv, rows, door.x), numbers(door.csv, rows, door.y)
    models = texts(door.csv, rows, door.by) if door.by else [""] * len(rows)
    settings = list(zip(_dial(door.csv, rows, door.steps), _dial(door.csv, rows, door.members)))
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
        {"checkpoint": model, "dials": [asdict(dial) for dial in dials(own)]}
        for model, own in _curves(models, settings, error.tolist()).items()
    ]
    name = door.csv.stem
    one = {"name": name, "metric": door.y, "cost": door.x, "points": points, "families": families}
    return [plain(one)]


def _dial(path: Path, rows: Rows, column: str | None) -> list[int]:
    """A dial of every row; one that has no column stays at 1."""
    return numbers(path, rows, column).astype(int).tolist() if column else [1] * len(rows)


def _curves(
    models: Sequence[str], settings: Sequence[Setting], errors: Sequence[float]
) -> dict[str, dict[Setting, float]]:
    """Errors by setting, by model."""
    found: dict[str, dict[Setting, float]] = {}
    for model, setting, error in zip(models, settings, errors):
        curve = found.setdefault(model, {})
        if setting in curve:
            raise UserError(
                f"Several points of {model or 'the table'} have {setting[0]} steps and "
                f"{setting[1]} members. Name the columns that differ with --steps, --members, --by."
            )
        curve[setting] = error
    return found


def _print(found: dict[str, Any]) -> None:
    """The frontier as a table, the cheapest first, and the verdicts below it."""
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "sampling", "NFE x members", found["cost"], found["metric"], "gain")
    for point in found["points"]:
        family = Family.of(point | {"checkpoint": "", "size": ""})
        sampling = str(family) if "sampler" in point else ""
        gain = "" if point["gain"] is None else f"{point['gain']:.1%}"
        setting = f"{point['nfe']} x {point['members']}"
        cells = (f"{point['cost']:.4g}", number(point["value"]), gain)
        table.add_row(point["checkpoint"], sampling, setting, *cells)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{found['name']}: {measure(found['metric']).label} worth its cost")
    console.print(table)
    if "unmeasured" in found:  # of a sweep
        console.print("  gains without intervals: the page of the sweep has them, from its images")
    if lost := found.get("unmeasured"):
        console.print(f"  left out: {count(lost, 'setting')} without a number")
    for family in found["families"]:
        console.print(f"  {_verdicts(family)}")
    console.print()


def _verdicts(family: dict[str, Any]) -> str:
    name = str(Family.of(family)) if "sampler" in family else family["checkpoint"]
    turned = [
        f"{_turned(dial)} {dial['verdict']} ({dial['gain']:+.1%})" for dial in family["dials"]
    ]
    both = [f"both {family['verdict']}"] if "verdict" in family else []
    return f"{name}: {'; '.join(turned + both)}".removeprefix(": ")


def _turned(dial: dict[str, Any]) -> str:
    if dial["dial"] == "members":
        return f"members at NFE {dial['at']}"
    return f"steps at {dial['at']} member{'s' * (dial['at'] > 1)}"
