"""`stepsight scaling fit`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, one_of
from stepsight.cli.scaling.fitted import FittedCurve, print_fits
from stepsight.cli.scaling.tables import Table, constants
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.measures import measure
from stepsight.scaling.intervals import LEVEL, PREDICTIVE
from stepsight.scaling.ladders.forecast import LOSS, Quantity, by_quantity
from stepsight.scaling.laws import columns
from stepsight.scaling.laws.averaging import average
from stepsight.scaling.laws.fits import compare, fit
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.records import FILE_NAME, ScalingRecord, column, read
from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.grouping import NO_GROUPS, grouped, run_column
from stepsight.scaling.rows.outliers import outliers
from stepsight.scaling.rows.preparation import prepared
from stepsight.scaling.rows.repeats import merged
from stepsight.scaling.rows.scores import turned

FORMS = f"or one of {', '.join(columns.NAMES)}"
# Of forms other than emergence, which has no forecasts along an axis.
LAW_FLAGS = {"huber": "--huber", "intervals": "--intervals", "at": "--at"}


@dataclass(frozen=True)
class FitCurve:
    """Rows that belong together."""

    name: str
    rows: CurveRows


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
    # with --csv: columns COL[,COL] of the run of each row, which resamples draw whole; none: rows
    # are independent; default: a column called run, or those that checkpoints of a run share
    groups: str | None = None
    at: tuple[str, ...] = ()  # forecast also there: NAME=VALUE[,NAME=VALUE], every input
    bootstrap: int = 200  # resamples; 0 for none
    intervals: Literal["bootstrap", "profile"] | None = None  # how they are made; bootstrap
    level: Annotated[
        float | None,
        arg(help=f"of intervals; default: {LEVEL:g} of parameters, {PREDICTIVE:g} of forecasts"),
    ] = None
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
    for note in (*notes, *(f"{curve.name}: {n}" for curve in curves for n in curve.rows.notes)):
        print(note, file=sys.stderr)
    results = [_fitted(curve, args) for curve in curves]
    if args.json:
        rows = [row for result in results for row in result.to_rows()]
        print(json.dumps(rows[0] if args.csv and args.form else rows, indent=2))
    else:
        for result in results:
            print_fits(result)
    return 0


def _check(args: Args) -> None:
    """Raises UserError for flags that do not go together, and for values out of range."""
    one_of("--form", args.form, columns.NAMES)
    elbow = args.form == columns.EMERGENCE
    if args.base is not None and not elbow:
        raise UserError(f"--base is the score of a trivial predictor; --form {columns.EMERGENCE}.")
    for name, flag in LAW_FLAGS.items():
        if elbow and getattr(args, name) not in (None, ()):
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
    if args.level is not None and not 0 < args.level < 1:
        raise UserError(f"--level {args.level:g}: give a share between 0 and 1, such as 0.9.")
    at_least(0, "--bootstrap", args.bootstrap)
    if args.huber is not None and not args.huber > 0:
        raise UserError(f"--huber {args.huber:g}: give a positive number, inf for least squares.")


def _fitted(curve: FitCurve, args: Args) -> FittedCurve:
    """The forms asked for, through the rows of a curve."""
    rows = curve.rows
    given = {name: getattr(args, name) for name in ("huber", "intervals", "base", "level")}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= {"bootstrap": args.bootstrap}
    places, level = [_place(text, rows) for text in args.at], args.level or PREDICTIVE
    if args.form:
        table = {**rows.x, rows.target: rows.y}
        fits = [
            columns.fit(
                args.form, table, x=list(rows.x), y=rows.target, groups=rows.runs, **settings
            )
        ]
    else:
        compared = compare(rows.table, rows.y, inputs=list(rows.x), groups=rows.runs, **settings)
        fits = [*compared.values(), average(compared)]
    return FittedCurve(curve.name, rows, fits, _odd(rows, fits, settings), level, places)


def _odd(rows: CurveRows, fits: Iterable[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Outliers by form, of the forms that have any."""

    def without(form: str, kept: NDArray[np.bool_]) -> Fit:
        left = rows.only(kept)
        return fit(form, left.table, left.y, inputs=list(left.x), groups=left.runs, **settings)

    laws = {law.form: law for law in fits if isinstance(law, Fit)}
    found = {name: outliers(law, rows, partial(without, name)) for name, law in laws.items()}
    return {name: odd for name, odd in found.items() if odd}


def _place(text: str, rows: CurveRows) -> dict[str, float]:
    """Where --at asks for a forecast. Raises UserError."""
    place = constants("--at", text)
    for name in place:
        if name not in rows.x:
            raise UserError(f"--at {text}: '{name}' is no input.{suggest(name, rows.x)}")
    for name in rows.x:
        if not 0 < place.get(name, 0) < np.inf:
            raise UserError(f"--at {text}: say {name} as well, a number above 0.")
    return {name: place[name] for name in rows.x}


def _csv_curve(args: Args, path: Path) -> FitCurve:
    table = Table.read(path)
    if args.y is None:
        raise UserError(f"--csv needs --y, a column.{suggest('', table.rows[0])}")
    table = Table.read(path, args.where)
    inputs = _inputs(args, table.rows[0])
    others = [name for name in table.rows[0] if name not in (*inputs, args.y)]
    rows = CurveRows(
        x={name: table.numbers(name) for name in inputs},
        y=table.numbers(args.y),
        target=args.y,
        names=tuple(f"line {number}" for number in table.lines),
        texts={name: tuple(table.texts(name)) for name in others},
    )
    rows = _with_runs(args, table, rows)
    if args.form == columns.EMERGENCE:
        return FitCurve(f"{path.name}: {args.y}", merged(rows))
    rows = turned(rows)
    _refuse_unusable(table, rows)
    return FitCurve(f"{path.name}: {rows.target}", prepared(rows, args.groups == NO_GROUPS))


def _with_runs(args: Args, table: Table, rows: CurveRows) -> CurveRows:
    """The rows with the runs that --groups names, or that a column names. Of an elbow, groups are
    models, which no column of runs tells."""
    if args.groups == NO_GROUPS:
        return rows
    named = [name.strip() for name in args.groups.split(",")] if args.groups else []
    if not named and args.form != columns.EMERGENCE and (found := run_column(rows.texts)):
        named = [found]
    return grouped(rows, {name: tuple(table.texts(name)) for name in named}) if named else rows


def _refuse_unusable(table: Table, rows: CurveRows) -> None:
    """Raises DataFormatError for rows without a logarithm."""
    bad = np.flatnonzero(~rows.usable).tolist()
    if bad:
        values = {**rows.x, rows.target: rows.y}
        name = next(name for name, column in values.items() if not column[bad[0]] > 0)
        more = f" (and {rows.called(bad[1:])})" if bad[1:] else ""
        raise DataFormatError(
            f"{table.path}:{table.lines[bad[0]]}: {name} is {values[name][bad[0]]:g}{more}. Laws "
            "are fitted in log space, to numbers above 0: leave such rows out with --where, or "
            "give an error such as 1 - delta1."
        )


def _inputs(args: Args, known: Iterable[str] = ()) -> list[str]:
    """Columns of inputs: those named, or those that the form or the records call so."""
    of_form = list(columns.INPUTS[args.form]) if args.form else []
    if args.x:
        names = [name.strip() for name in args.x.split(",")]
        if len(set(names)) < len(names):
            raise UserError(f"--x {args.x} names a column twice: name each input once.")
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
    for name, group in _groups(records, y, inputs).items():
        xs, ys = {x: column(group, x) for x in inputs}, column(group, y)
        if y == "value" and not group[0].lower_is_better:
            best = measure(group[0].metric).best or 1.0
            name, ys = f"{name}, as {best:g} - value", best - ys
        rows = CurveRows(
            x=xs,
            y=ys,
            target=y,
            names=tuple(f"{record.run} at {record.images_seen:,} images" for record in group),
            runs=tuple(record.run for record in group),
        )
        lacking = np.flatnonzero(~rows.usable).tolist()
        if lacking:
            told = f"left out {len(lacking)} points without positive numbers"
            notes.append(f"{name}: {told}, {rows.called(lacking)}")
        if rows.usable.any():
            yield FitCurve(name, prepared(rows.only(rows.usable)))


def _groups(
    records: list[ScalingRecord], y: str, inputs: Sequence[str]
) -> dict[str, list[ScalingRecord]]:
    """Records that may share a curve. What is no score belongs to a checkpoint and its task,
    whatever was measured on it, and so counts once."""
    scores = y == "value"
    every = by_quantity(records, inputs).items()
    groups = [(q, rows) for q, rows in every if (q.metric == LOSS) != scores]
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
    kind = quantity.dataset, quantity.size, quantity.experts, start
    return ", ".join(filter(None, [_short(quantity, y), *kind]))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
