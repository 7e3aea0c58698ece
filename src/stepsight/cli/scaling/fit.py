"""Fit laws to the records of several runs, or to columns of any CSV.

Every group of points that may share a curve (one task, one metric under one protocol and one
test-time setting) gets its own fit of the forms asked for, its verdict and its warnings. One form
on a table (--form and --csv) prints one JSON object, anything else a list.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepsight.cli.scaling.rows import where
from stepsight.cli.scaling.tables import numbers, read_table, texts
from stepsight.errors import UserError, suggest
from stepsight.scaling.ladders.forecast import LOSS, Quantity, by_quantity
from stepsight.scaling.laws import columns
from stepsight.scaling.laws.fits import LEVEL, Fit, compare
from stepsight.scaling.records import FILE_NAME, ScalingRecord, column, read

if TYPE_CHECKING:
    from stepsight.scaling.emergence.elbow import EmergenceFit

    AnyFit = Fit | EmergenceFit

LAW_FLAGS = {"huber": "--huber", "intervals": "--intervals"}  # of forms other than emergence


@dataclass(frozen=True)
class Curve:
    """Points that belong together, inputs by name; `runs` labels them for bootstraps over runs."""

    name: str
    x: dict[str, np.ndarray]
    target: str
    y: np.ndarray
    runs: Sequence[str] | None


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("records", nargs="*", type=Path, help=f"{FILE_NAME} files or run folders")
    own.add_argument(
        "--form", choices=columns.NAMES, help="one form; by default the common ones, best first"
    )
    own.add_argument(
        "--x",
        metavar="COL[,COL]",
        help="inputs, in the order of the form; by default training_flops, with --csv the columns "
        "named as the form names its inputs",
    )
    own.add_argument("--y", help="loss or value; by default both. With --csv: a column")
    own.add_argument("--task", help="only this task")
    own.add_argument("--metric", help="only this metric")
    own.add_argument("--csv", type=Path, help="fit columns of this table instead of records")
    own.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COL=VALUE",
        help="with --csv: only such rows; also !=, < and >; may be repeated",
    )
    own.add_argument("--groups", metavar="COL", help="with --csv: the run of each row, resampled")
    own.add_argument("--bootstrap", type=int, default=200, help="resamples; 0 for none")
    own.add_argument(
        "--intervals", choices=("bootstrap", "profile"), help="how they are found (bootstrap)"
    )
    own.add_argument("--level", type=float, default=LEVEL, help=f"of the intervals ({LEVEL:g})")
    own.add_argument("--huber", type=float, help="log error beyond which the loss is linear (0.01)")
    own.add_argument(
        "--base", type=float, help="with --form emergence: score of a trivial predictor"
    )
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the fits.

    Raises:
        UserError: nothing to fit; the message says why.
    """
    _check(door)
    if door.csv:
        curves, notes = [_csv_curve(door)], []
    else:
        curves, notes = _record_curves(door)
    for note in notes:
        print(note, file=sys.stderr)
    results = [(curve, _fits(curve, door)) for curve in curves]
    rows = [{"curve": curve.name, **one.to_dict()} for curve, fits in results for one in fits]
    if door.json:
        print(json.dumps(rows[0] if door.csv and door.form else rows, indent=2))
    else:
        for curve, fits in results:
            _print_curve(curve, fits)
    return 0


def _check(door: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together, and for values out of range."""
    elbow = door.form == columns.EMERGENCE
    if door.base is not None and not elbow:
        raise UserError(f"--base is the score of a trivial predictor; --form {columns.EMERGENCE}.")
    for name, flag in LAW_FLAGS.items():
        if elbow and getattr(door, name) is not None:
            raise UserError(f"{flag} is not for --form {columns.EMERGENCE}. Leave it out.")
    for flag, value in (("--where", door.where), ("--groups", door.groups)):
        if value and not door.csv:
            raise UserError(f"{flag} chooses among the columns of a table; name one with --csv.")
    idle = {"records": door.records, "--task": door.task, "--metric": door.metric}
    for flag, value in idle.items():
        if value and door.csv:
            raise UserError(f"{flag} chooses among records, not columns of --csv. Use --where.")
    if elbow and not door.csv:
        raise UserError(f"--form {columns.EMERGENCE} fits columns of a table; name one with --csv.")
    if not 0 < door.level < 1:
        raise UserError(f"--level {door.level:g}: give a share between 0 and 1, such as 0.9.")
    if door.bootstrap < 0:
        raise UserError(f"--bootstrap {door.bootstrap}: give a number of resamples, 0 for none.")
    if door.huber is not None and not door.huber > 0:
        raise UserError(f"--huber {door.huber:g}: give a positive number, inf for least squares.")


def _fits(curve: Curve, door: argparse.Namespace) -> list[AnyFit]:
    given = {name: getattr(door, name) for name in ("huber", "intervals", "base")}
    settings: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
    settings |= {"groups": curve.runs, "bootstrap": door.bootstrap, "level": door.level}
    if door.form:
        table = curve.x | {curve.target: curve.y}
        return [columns.fit(door.form, table, x=list(curve.x), y=curve.target, **settings)]
    table = np.stack(list(curve.x.values()), axis=1)
    return list(compare(table, curve.y, inputs=list(curve.x), **settings).values())


def _csv_curve(door: argparse.Namespace) -> Curve:
    rows = read_table(door.csv)
    if door.y is None:
        raise UserError(f"--csv needs --y, a column.{suggest('', rows[0])}")
    rows = where(door.csv, rows, door.where)
    inputs = _inputs(door, rows[0])
    x = {name: numbers(door.csv, rows, name) for name in inputs}
    runs = texts(door.csv, rows, door.groups) if door.groups else None
    y = numbers(door.csv, rows, door.y)
    return Curve(f"{door.csv.name}: {door.y}", x, door.y, y, runs)


def _inputs(door: argparse.Namespace, known: Iterable[str] = ()) -> list[str]:
    """Columns of inputs: those named, or those that the form or the records call so."""
    own = list(columns.INPUTS[door.form]) if door.form else []
    if door.x:
        names = [name.strip() for name in door.x.split(",")]
    else:
        names = own if own and set(own) <= set(known) else ["training_flops"]
    if own and len(names) != len(own):
        wanted = f"{len(own)} columns, {', '.join(own)}"
        raise UserError(f"--form {door.form} needs --x with {wanted}; it has {', '.join(names)}.")
    return names


def _record_curves(door: argparse.Namespace) -> tuple[list[Curve], list[str]]:
    records, notes = read(*door.records)
    if not records:
        raise UserError(
            f"No records found under {_listed(door.records) or 'no path at all'}. "
            f"Name run folders that hold a {FILE_NAME}, which evaluation writes."
        )
    for field in ("task", "metric"):
        records = _selected(records, field, getattr(door, field))
    wanted = [door.y] if door.y else ["loss", "value"]
    inputs = _inputs(door)
    curves = [curve for y in wanted for curve in _curves(records, inputs, y, notes)]
    if not curves:
        has = f"{_listed(inputs)} and {_listed(wanted)}"
        raise UserError(f"None of {len(records)} records has {has}.")
    return curves, notes


def _selected(records: list[ScalingRecord], field: str, wanted: str | None) -> list[ScalingRecord]:
    if wanted is None:
        return records
    kept = [record for record in records if getattr(record, field) == wanted]
    if not kept:
        known = {getattr(record, field) for record in records}
        raise UserError(f"No records of {field} '{wanted}'.{suggest(wanted, known)}")
    return kept


def _curves(
    records: list[ScalingRecord], inputs: list[str], y: str, notes: list[str]
) -> Iterable[Curve]:
    """One curve for every group whose points have all numbers; `notes` says what was left out."""
    if y == "value" and (lost := sum(record.value is None for record in records)):
        notes.append(f"left out {lost} points that were not measured")
    for name, group in _groups(records, y).items():
        xs, ys = {x: column(group, x) for x in inputs}, column(group, y)
        if y == "value" and not group[0].lower_is_better:
            name, ys = f"{name}, as 1 - value", 1 - ys
        usable = np.all([one > 0 for one in (*xs.values(), ys)], axis=0)
        if not usable.all():
            notes.append(f"{name}: left out {np.sum(~usable)} points without positive numbers")
        if usable.any():
            runs = [record.run for record, keep in zip(group, usable) if keep]
            kept = {x: values[usable] for x, values in xs.items()}
            yield Curve(name, kept, y, ys[usable], runs)


def _groups(records: list[ScalingRecord], y: str) -> dict[str, list[ScalingRecord]]:
    """Records that may share a curve. What is no score belongs to a checkpoint and its task,
    whatever was measured on it, and so counts once."""
    found = by_quantity(records).items()
    groups = [(one, rows) for one, rows in found if (one.metric == LOSS) == (y != "value")]
    short = Counter(_short(one, y) for one, _ in groups)
    return {
        _short(one, y) if short[_short(one, y)] == 1 else _long(one, y): rows
        for one, rows in groups
    }


def _short(one: Quantity, y: str) -> str:
    if y != "value":
        return f"{one.task} {y}"
    setting = f"{one.sampler} {one.nfe} x {one.members}"
    return f"{one.task} {one.dataset} {one.protocol} {one.metric}, {setting}"


def _long(one: Quantity, y: str) -> str:
    """Told apart from curves of the same short name."""
    start = "fine-tuned" if one.tuned else "from scratch"
    return ", ".join(filter(None, [_short(one, y), one.dataset, one.size, start]))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _print_curve(curve: Curve, fits: list[AnyFit]) -> None:
    """A table with a row a form, and below it what to keep in mind."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for one in fits for name in one.params))
    table = Table(show_lines=True)
    for name in ("form", *names, "R2", "held out", "verdict"):
        table.add_column(name, overflow="fold")
    for one in fits:
        cells = [_cell(one, name) for name in names]
        left_out = f"{one.held_out:.2%}" if isinstance(one, Fit) else ""
        table.add_row(one.form, *cells, f"{one.r2:.3f}", left_out, one.verdict)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{curve.name} against {_listed(curve.x)} ({len(curve.y)} points; {_drawn(fits)})"
    )
    console.print(table)
    for one in fits:
        for line in (one.formula, *one.warnings):
            console.print(f"  {one.form}: {line}")
    console.print()


def _drawn(fits: list[AnyFit]) -> str:
    """Where the intervals are from."""
    ways = [_way(one) for one in fits]
    return f"{fits[0].level:.0%} intervals {' / '.join(dict.fromkeys(ways))}"


def _way(one: AnyFit) -> str:
    if not isinstance(one, Fit):
        return "resample models"
    return "by profile" if one.method == "profile" else f"resample {one.resampling}"


def _cell(one: AnyFit, name: str) -> str:
    if name not in one.params:
        return ""
    lo, hi = one.intervals[name]
    return f"{one.params[name]:.4g}\n{lo:.3g} to {hi:.3g}"
