"""`stepsight scaling fit`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, one_of
from stepsight.cli.scaling.tables import Table
from stepsight.errors import UserError, suggest
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.ladders.forecast import LOSS, Quantity, by_quantity
from stepsight.scaling.laws import columns
from stepsight.scaling.laws.fits import compare
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.records import FILE_NAME, ScalingRecord, column, read

if TYPE_CHECKING:
    from stepsight.scaling.emergence.elbow import EmergenceFit

    AnyFit = Fit | EmergenceFit

FORMS = f"or one of {', '.join(columns.NAMES)}"
LAW_FLAGS = {"huber": "--huber", "intervals": "--intervals"}  # of forms other than emergence


@dataclass(frozen=True)
class FitCurve:
    """Points that belong together, inputs by name; `runs` labels them for bootstraps over runs."""

    name: str
    x: dict[str, np.ndarray]
    target: str
    y: np.ndarray
    runs: Sequence[str] | None


@dataclass(frozen=True)
class Args:
    """Fit laws to the records of several runs, or to columns of any CSV.

    Every group of points that may share a curve (one task, one metric under one protocol and one
    test-time setting) gets its own fit of the forms asked for, its verdict and its warnings. One
    form on a table (--form and --csv) prints one JSON object, anything else a list.
    """

    # files or folders of runs with a records.jsonl
    records: Positional[Annotated[tuple[Path, ...], arg(metavar="[RECORDS...]")]] = ()
    form: Annotated[str | None, arg(help=f"default: the common ones, best first; {FORMS}")] = None
    # columns COL[,COL] of inputs, in the order of the form; default: training_flops, with --csv the
    # columns named as the form names its inputs
    x: str | None = None
    y: str | None = None  # loss or value; default: both. With --csv: a column
    task: str | None = None  # only this task
    metric: str | None = None  # only this metric
    csv: Path | None = None  # fit columns of this table instead of records
    where: tuple[str, ...] = ()  # with --csv: only rows of COL=VALUE; also !=, < and >
    groups: str | None = None  # with --csv: column of the run of each row, which resamples draw
    bootstrap: int = 200  # resamples; 0 for none
    intervals: Literal["bootstrap", "profile"] | None = None  # how they are made; bootstrap
    level: float = LEVEL  # of the intervals
    huber: float | None = None  # log error beyond which the loss is linear; default: 0.01
    base: float | None = None  # with --form emergence: score of a trivial predictor
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the fits.

    Raises:
        UserError: nothing to fit; the message says why.
    """
    _check(args)
    if args.csv:
        curves, notes = [_csv_curve(args, args.csv)], []
    else:
        curves, notes = _record_curves(args)
    for note in notes:
        print(note, file=sys.stderr)
    results = [(curve, _fits(curve, args)) for curve in curves]
    rows = [{"curve": curve.name, **fit.to_dict()} for curve, fits in results for fit in fits]
    if args.json:
        print(json.dumps(rows[0] if args.csv and args.form else rows, indent=2))
    else:
        for curve, fits in results:
            _print_curve(curve, fits)
    return 0


def _check(args: Args) -> None:
    """Raises UserError for flags that do not go together, and for values out of range."""
    one_of("--form", args.form, columns.NAMES)
    elbow = args.form == columns.EMERGENCE
    if args.base is not None and not elbow:
        raise UserError(f"--base is the score of a trivial predictor; --form {columns.EMERGENCE}.")
    for name, flag in LAW_FLAGS.items():
        if elbow and getattr(args, name) is not None:
            raise UserError(f"{flag} is not for --form {columns.EMERGENCE}. Leave it out.")
    for flag, value in (("--where", args.where), ("--groups", args.groups)):
        if value and not args.csv:
            raise UserError(f"{flag} chooses among the columns of a table; name one with --csv.")
    idle = {"records": args.records, "--task": args.task, "--metric": args.metric}
    for flag, value in idle.items():
        if value and args.csv:
            raise UserError(f"{flag} chooses among records, not columns of --csv. Use --where.")
    if elbow and not args.csv:
        raise UserError(f"--form {columns.EMERGENCE} fits columns of a table; name one with --csv.")
    if not 0 < args.level < 1:
        raise UserError(f"--level {args.level:g}: give a share between 0 and 1, such as 0.9.")
    at_least(0, "--bootstrap", args.bootstrap)
    if args.huber is not None and not args.huber > 0:
        raise UserError(f"--huber {args.huber:g}: give a positive number, inf for least squares.")


def _fits(curve: FitCurve, args: Args) -> list[AnyFit]:
    given = {name: getattr(args, name) for name in ("huber", "intervals", "base")}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= {"groups": curve.runs, "bootstrap": args.bootstrap, "level": args.level}
    if args.form:
        table = curve.x | {curve.target: curve.y}
        return [columns.fit(args.form, table, x=list(curve.x), y=curve.target, **settings)]
    table = np.stack(list(curve.x.values()), axis=1)
    return list(compare(table, curve.y, inputs=list(curve.x), **settings).values())


def _csv_curve(args: Args, path: Path) -> FitCurve:
    table = Table.read(path)
    if args.y is None:
        raise UserError(f"--csv needs --y, a column.{suggest('', table.rows[0])}")
    table = Table.read(path, args.where)
    x = {name: table.numbers(name) for name in _inputs(args, table.rows[0])}
    runs = table.texts(args.groups) if args.groups else None
    return FitCurve(f"{path.name}: {args.y}", x, args.y, table.numbers(args.y), runs)


def _inputs(args: Args, known: Iterable[str] = ()) -> list[str]:
    """Columns of inputs: those named, or those that the form or the records call so."""
    of_form = list(columns.INPUTS[args.form]) if args.form else []
    if args.x:
        names = [name.strip() for name in args.x.split(",")]
    else:
        names = of_form if of_form and set(of_form) <= set(known) else ["training_flops"]
    if of_form and len(names) != len(of_form):
        wanted = f"{len(of_form)} columns, {', '.join(of_form)}"
        raise UserError(f"--form {args.form} needs --x with {wanted}; it has {', '.join(names)}.")
    return names


def _record_curves(args: Args) -> tuple[list[FitCurve], list[str]]:
    records, notes = read(*args.records)
    if not records:
        searched = f"under {_listed(args.records)}" if args.records else "as no path was given"
        raise UserError(
            f"No records found {searched}. Name run folders that hold a {FILE_NAME}, which "
            "evaluation writes."
        )
    for field in ("task", "metric"):
        records = _selected(records, field, getattr(args, field))
    wanted = [args.y] if args.y else ["loss", "value"]
    inputs = _inputs(args)
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
) -> Iterable[FitCurve]:
    """One curve for every group whose points have all numbers; `notes` says what was left out."""
    if y == "value" and (lost := sum(record.value is None for record in records)):
        notes.append(f"left out {lost} points that were not measured")
    for name, group in _groups(records, y).items():
        xs, ys = {x: column(group, x) for x in inputs}, column(group, y)
        if y == "value" and not group[0].lower_is_better:
            name, ys = f"{name}, as 1 - value", 1 - ys
        usable = np.all([values > 0 for values in (*xs.values(), ys)], axis=0)
        if not usable.all():
            notes.append(f"{name}: left out {np.sum(~usable)} points without positive numbers")
        if usable.any():
            runs = [record.run for record, keep in zip(group, usable) if keep]
            kept = {x: values[usable] for x, values in xs.items()}
            yield FitCurve(name, kept, y, ys[usable], runs)


def _groups(records: list[ScalingRecord], y: str) -> dict[str, list[ScalingRecord]]:
    """Records that may share a curve. What is no score belongs to a checkpoint and its task,
    whatever was measured on it, and so counts once."""
    scores = y == "value"
    groups = [(q, rows) for q, rows in by_quantity(records).items() if (q.metric == LOSS) != scores]
    short = Counter(_short(quantity, y) for quantity, _ in groups)
    return {
        _short(quantity, y) if short[_short(quantity, y)] == 1 else _long(quantity, y): rows
        for quantity, rows in groups
    }


def _short(quantity: Quantity, y: str) -> str:
    if y != "value":
        return f"{quantity.task} {y}"
    sampling = f"{quantity.sampler} {quantity.nfe} x {quantity.members}"
    return f"{quantity.task} {quantity.dataset} {quantity.protocol} {quantity.metric}, {sampling}"


def _long(quantity: Quantity, y: str) -> str:
    """Distinct from curves of the same short name."""
    start = "fine-tuned" if quantity.tuned else "from scratch"
    return ", ".join(filter(None, [_short(quantity, y), quantity.dataset, quantity.size, start]))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _print_curve(curve: FitCurve, fits: list[AnyFit]) -> None:
    """A table with a row per form, and below it what to keep in mind."""
    from rich.console import Console
    from rich.table import Table as Grid

    names = list(dict.fromkeys(name for fit in fits for name in fit.params))
    table = Grid("form", *names, "R2", "held out", "verdict", show_lines=True)
    for shown in table.columns:
        shown.overflow = "fold"
    for fit in fits:
        cells = [_cell(fit, name) for name in names]
        left_out = f"{fit.held_out:.2%}" if isinstance(fit, Fit) else ""
        table.add_row(fit.form, *cells, f"{fit.r2:.3f}", left_out, fit.verdict)
    methods = " / ".join(dict.fromkeys(_method(fit) for fit in fits))
    about = f"{len(curve.y)} points; {fits[0].level:.0%} intervals {methods}"
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{curve.name} against {_listed(curve.x)} ({about})")
    console.print(table)
    for fit in fits:
        for line in (fit.formula, *fit.warnings):
            console.print(f"  {fit.form}: {line}")
    console.print()


def _method(fit: AnyFit) -> str:
    """How its intervals are made."""
    if not isinstance(fit, Fit):
        return "resample models"
    return "by profile" if fit.method == "profile" else f"resample {fit.resampling}"


def _cell(fit: AnyFit, name: str) -> str:
    if name not in fit.params:
        return ""
    lo, hi = fit.intervals[name]
    return f"{fit.params[name]:.4g}\n{lo:.3g} to {hi:.3g}"
