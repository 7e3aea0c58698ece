"""Fit training-compute laws to the records of several runs, or to any column of a CSV.

Every group of points that may share a curve (one task, one metric under one protocol and one
test-time setting) gets its own fit of every form, its verdict and its warnings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepsight.cli.scaling.tables import numbers, read_table
from stepsight.errors import UserError, suggest
from stepsight.scaling.fits import Fit, compare, fit
from stepsight.scaling.forms import FORMS
from stepsight.scaling.records import FILE_NAME, ScalingRecord, column, read


@dataclass(frozen=True)
class Curve:
    """Points that belong together; `runs` labels them for bootstraps over runs."""

    name: str
    x: np.ndarray
    y: np.ndarray
    runs: Sequence[str] | None


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("records", nargs="*", type=Path, help=f"{FILE_NAME} files or run folders")
    own.add_argument("--form", choices=list(FORMS), help="one form; by default all, best first")
    own.add_argument("--x", default="training_flops", help="column on the x axis")
    own.add_argument("--y", help="loss or value; by default both. With --csv: a column")
    own.add_argument("--task", help="only this task")
    own.add_argument("--metric", help="only this metric")
    own.add_argument("--csv", type=Path, help="fit columns of this table instead of records")
    own.add_argument("--bootstrap", type=int, default=200, help="resamples; 0 for no intervals")
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the fits.

    Raises:
        UserError: nothing to fit; the message says why.
    """
    if door.csv:
        curves, notes = [_csv_curve(door.csv, door.x, door.y)], []
    else:
        curves, notes = _record_curves(door)
    for note in notes:
        print(note, file=sys.stderr)
    results = [(curve, _fits(curve, door)) for curve in curves]
    if door.json:
        rows = [{"curve": curve.name, **one.to_dict()} for curve, fits in results for one in fits]
        print(json.dumps(rows, indent=2))
    else:
        for curve, fits in results:
            _print_curve(curve, fits)
    return 0


def _fits(curve: Curve, door: argparse.Namespace) -> list[Fit]:
    settings = {"groups": curve.runs, "bootstrap": door.bootstrap}
    if door.form:
        return [fit(door.form, curve.x, curve.y, **settings)]
    return list(compare(curve.x, curve.y, **settings).values())


def _csv_curve(path: Path, x: str, y: str | None) -> Curve:
    rows = read_table(path)
    if y is None:
        raise UserError(f"--csv needs --y, a column.{suggest('', rows[0])}")
    return Curve(f"{path.name}: {y}", numbers(path, rows, x), numbers(path, rows, y), None)


def _record_curves(door: argparse.Namespace) -> tuple[list[Curve], list[str]]:
    records, notes = read(*door.records)
    if not records:
        raise UserError(
            f"No records found under {_listed(door.records) or 'no path at all'}. "
            f"Name run folders that hold a {FILE_NAME}, which evaluation writes."
        )
    for field in ("task", "metric"):
        records = _selected(records, field, getattr(door, field))
    columns = [door.y] if door.y else ["loss", "value"]
    curves = [curve for y in columns for curve in _curves(records, door.x, y, notes)]
    if not curves:
        raise UserError(f"None of {len(records)} records has {door.x} and {_listed(columns)}.")
    return curves, notes


def _selected(records: list[ScalingRecord], field: str, wanted: str | None) -> list[ScalingRecord]:
    if wanted is None:
        return records
    kept = [record for record in records if getattr(record, field) == wanted]
    if not kept:
        known = {getattr(record, field) for record in records}
        raise UserError(f"No records of {field} '{wanted}'.{suggest(wanted, known)}")
    return kept


def _curves(records: list[ScalingRecord], x: str, y: str, notes: list[str]) -> Iterable[Curve]:
    """One curve for every group whose points have both numbers; `notes` says what was left out."""
    for name, group in _groups(records, y).items():
        xs, ys = column(group, x), column(group, y)
        if y == "value" and not group[0].lower_is_better:
            name, ys = f"{name}, as 1 - value", 1 - ys
        usable = (xs > 0) & (ys > 0)
        if not usable.all():
            notes.append(f"{name}: left out {np.sum(~usable)} points without positive numbers")
        if usable.any():
            runs = [record.run for record, keep in zip(group, usable) if keep]
            yield Curve(name, xs[usable], ys[usable], runs)


def _groups(records: list[ScalingRecord], y: str) -> dict[str, list[ScalingRecord]]:
    """Scores are split by all that may not vary along a curve.

    Losses belong to a checkpoint and its task, whatever was measured on it, so they count once.
    """
    groups: dict[str, dict[object, ScalingRecord]] = {}
    for r in records:
        if y == "value":
            name = (
                f"{r.task} {r.dataset} {r.protocol} {r.metric}, {r.sampler} {r.nfe} x {r.members}"
            )
            groups.setdefault(name, {})[r] = r
        else:
            checkpoint = (r.run, r.config, r.seed, r.images_seen)
            groups.setdefault(f"{r.task} {y}", {}).setdefault(checkpoint, r)
    return {name: list(group.values()) for name, group in groups.items()}


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _print_curve(curve: Curve, fits: list[Fit]) -> None:
    """A table with a row a form, and below it what to keep in mind."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for one in fits for name in one.params))
    table = Table("form", *names, "R2", "verdict", show_lines=True)
    for one in fits:
        cells = [_cell(one, name) for name in names]
        table.add_row(one.formula, *cells, f"{one.r2:.3f}", one.verdict)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{curve.name} ({len(curve.x)} points; 95 % intervals resample {_drawn(fits)})")
    console.print(table)
    for one in fits:
        for warning in one.warnings:
            console.print(f"  {one.formula}: {warning}")
    console.print()


def _drawn(fits: list[Fit]) -> str:
    return " / ".join(dict.fromkeys(one.resampling for one in fits))


def _cell(one: Fit, name: str) -> str:
    if name not in one.params:
        return ""
    lo, hi = one.intervals[name]
    return f"{one.params[name]:.4g}\n{lo:.3g} to {hi:.3g}"
