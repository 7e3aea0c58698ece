"""Predict one loss or error of a model from another: y = K (x - E0)^kappa + E1.

Of a table whose rows hold both (--x, --y), of one in which the rows of two groups correspond
(--by COL --from A --to B --on COL), or of the records of runs (--hook). Floors that are known are
given with their origin, --floor-y .026:measured or --floor-x 1.97+-.02:law; others are fitted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from stepsight.cli.scaling.assignments import assignments
from stepsight.cli.scaling.tables import Rows, numbers, read_table, texts
from stepsight.errors import UserError, suggest
from stepsight.scaling.loss_to_loss.pairs import HOOKS, join, pair
from stepsight.scaling.loss_to_loss.relation import (
    LEVEL,
    PARAMETERS,
    Floor,
    Forecast,
    Origin,
    Relation,
    relate,
)
from stepsight.scaling.plain import plain
from stepsight.scaling.records import FILE_NAME, read

OF_TABLES = ("by", "group", "to", "on", "runs")
OF_RECORDS = ("hook", "task", "metric", "where", "x_where", "y_where")


class _Losses(NamedTuple):
    """Pairs, what their axes are, the runs that made them, and what was left out."""

    x: Sequence[float]
    y: Sequence[float]
    names: tuple[str, str]
    runs: Sequence[str] | None
    notes: Sequence[str]


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("records", nargs="*", type=Path, help=f"{FILE_NAME} files or run folders")
    own.add_argument("--csv", type=Path, help="a table instead of records")
    own.add_argument(
        "--x", help="column of the loss that is known; of records by default the hook's"
    )
    own.add_argument("--y", help="column of the loss to predict; with --to by default that of --x")
    own.add_argument("--by", help="with --csv: column of groups, such as training data")
    own.add_argument("--from", dest="group", metavar="GROUP", help="the group that x is read from")
    own.add_argument("--to", metavar="GROUP", help="the group that y is read from, if another")
    own.add_argument("--on", help="with --to: columns COL[,COL] in which partners agree")
    own.add_argument("--runs", help="with --csv: column of runs, which bootstraps draw whole")
    own.add_argument("--hook", choices=list(HOOKS), help="of records: what is paired with what")
    own.add_argument("--task", help="of records: only this task")
    own.add_argument("--metric", help="of records: only this metric")
    for flag, axis in (("--where", "both axes"), ("--x-where", "x"), ("--y-where", "y")):
        own.add_argument(
            flag, action="append", metavar="FIELD=VALUE", help=f"of records: which stand on {axis}"
        )
    own.add_argument("--floor-x", metavar="E0[+-SD][:ORIGIN]", help="irreducible part of x")
    own.add_argument("--floor-y", metavar="E1[+-SD][:ORIGIN]", help="irreducible part of y")
    own.add_argument("--bootstrap", type=int, default=200, help="resamples; 0 for no intervals")
    own.add_argument("--level", type=float, default=LEVEL, help="of intervals")
    own.add_argument("--at", type=float, help="predict y where x is this")
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the relation, and the prediction. Raises UserError where there is nothing to relate."""
    if not 0 < door.level < 1:
        raise UserError(f"--level {door.level:g}: write a share between 0 and 1, such as .9.")
    losses = _of_table(door) if door.csv else _of_records(door)
    for note in losses.notes:
        print(note, file=sys.stderr)
    relation = relate(
        losses.x,
        losses.y,
        floor_x=_floor("--floor-x", door.floor_x),
        floor_y=_floor("--floor-y", door.floor_y),
        groups=losses.runs,
        bootstrap=door.bootstrap,
        level=door.level,
    )
    forecast = None if door.at is None else relation.forecast(door.at)
    if door.json:
        print(json.dumps(_row(losses.names, relation, forecast), indent=2))
    else:
        print("\n".join(_lines(losses.names, relation, forecast)))
    return 0


def _of_table(door: argparse.Namespace) -> _Losses:
    _refuse(door, OF_RECORDS, "are for records; a table is read with --csv, --x, --y, --by")
    if door.records:
        raise UserError("Give records or --csv, not both.")
    y = door.y or (door.x if door.to else None)
    if not (door.x and y):
        raise UserError("--csv needs --x and --y, columns of losses.")
    table = read_table(door.csv)
    if door.to:
        return _joined(door, table, y)
    _refuse(door, ("on",), "joins two groups: say --to, the other one")
    rows, notes = _filled(door.csv, _group(door, table, door.group), (door.x, y))
    runs = texts(door.csv, rows, door.runs) if door.runs else None
    x, y_values = numbers(door.csv, rows, door.x), numbers(door.csv, rows, y)
    return _Losses(x.tolist(), y_values.tolist(), (door.x, y), runs, notes)


def _joined(door: argparse.Namespace, table: Rows, y: str) -> _Losses:
    """Rows of one group beside those of another that agree in the columns of --on."""
    if not (door.by and door.group and door.on):
        raise UserError("--to needs --by COL, --from GROUP and --on COL[,COL].")
    left, notes = _filled(door.csv, _group(door, table, door.group), (door.x,))
    right, others = _filled(door.csv, _group(door, table, door.to), (y,))
    columns = door.on.split(",")
    places = join(*(_keys(door.csv, rows, columns) for rows in (left, right)))
    if not places:
        raise UserError(f"{door.csv}: no row of {door.group} agrees with one of {door.to}.")
    notes = [*notes, *others]
    if alone := len(left) + len(right) - 2 * len(places):
        notes.append(f"{alone} rows have no partner")
    lefts, rights = [left[i] for i, _ in places], [right[j] for _, j in places]
    x, y_values = numbers(door.csv, lefts, door.x), numbers(door.csv, rights, y)
    names = (f"{door.x} of {door.group}", f"{y} of {door.to}")
    runs = texts(door.csv, lefts, door.runs) if door.runs else None
    return _Losses(x.tolist(), y_values.tolist(), names, runs, notes)


def _group(door: argparse.Namespace, table: Rows, group: str | None) -> Rows:
    """The rows of one group, or all where none is named."""
    if (door.by is None) != (group is None):
        raise UserError("--by COL and --from GROUP go together.")
    if group is None:
        return table
    named = texts(door.csv, table, door.by)
    if group not in named:
        raise UserError(f"{door.csv}: {door.by} is never '{group}'.{suggest(group, set(named))}")
    return [row for row, own in zip(table, named) if own == group]


def _filled(path: Path, rows: Rows, columns: Sequence[str]) -> tuple[Rows, list[str]]:
    """The rows that have all of the numbers, and a note on the others."""
    cells = zip(*(texts(path, rows, name) for name in columns))
    kept = [row for row, values in zip(rows, cells) if all(value.strip() for value in values)]
    if not kept:
        raise UserError(f"{path}: no row has {' and '.join(columns)}.")
    missing = len(rows) - len(kept)
    return kept, [f"left out {missing} rows without {' or '.join(columns)}"] if missing else []


def _keys(path: Path, rows: Rows, columns: Sequence[str]) -> list[tuple[str | float, ...]]:
    """What partners agree in; numbers may be written in any way."""
    return list(zip(*([_number(text) for text in texts(path, rows, name)] for name in columns)))


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _of_records(door: argparse.Namespace) -> _Losses:
    _refuse(door, OF_TABLES, "are for tables; records are paired with --hook")
    if not door.records:
        raise UserError(
            f"Name run folders that hold a {FILE_NAME} and a --hook, or a table (--csv)."
        )
    if not door.hook:
        raise UserError(f"Records need a --hook.{suggest('', HOOKS)}")
    records, notes = read(*door.records)
    both = assignments("--where", door.where)
    both |= {name: own for name in ("task", "metric") if (own := getattr(door, name))}
    x_where = assignments("--x-where", door.x_where)
    y_where = assignments("--y-where", door.y_where)
    left = dict(both)
    for fixed in HOOKS[door.hook].x_where:
        left.pop(fixed, None)  # the hook says what stands there
    found = pair(
        records,
        door.hook,
        x=door.x,
        y=door.y,
        x_where={**left, **x_where},
        y_where={**both, **y_where},
    )
    x, y = [one.x for one in found.pairs], [one.y for one in found.pairs]
    runs = [one.label for one in found.pairs]
    return _Losses(x, y, (found.x, found.y), runs, [*notes, *found.notes])


def _refuse(door: argparse.Namespace, names: Sequence[str], why: str) -> None:
    given = [name for name in names if getattr(door, name) is not None]
    if given:
        flags = ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in given)
        raise UserError(f"{flags} {why}.")


_FLAGS = {"group": "from"}


def _floor(flag: str, text: str | None) -> Floor | None:
    """`1.97`, `1.97:law` or `1.97+-.02:law`."""
    if text is None:
        return None
    number, colon, origin = text.partition(":")
    value, _, deviation = number.partition("+-")
    known = {name: name for name in get_args(Origin) if name != "fitted"}
    if colon and origin not in known:
        raise UserError(f"{flag} {text}: '{origin}' is no origin.{suggest(origin, known)}")
    try:
        return Floor(float(value), known[origin or "given"], float(deviation or 0))
    except ValueError as error:
        raise UserError(f"{flag} {text}: write a number, such as .026:measured.") from error


def _row(names: tuple[str, str], relation: Relation, forecast: Forecast | None) -> dict[str, Any]:
    row = {"x": names[0], "y": names[1], **relation.to_dict()}
    return row if forecast is None else row | {"prediction": plain(vars(forecast))}


def _lines(names: tuple[str, str], relation: Relation, forecast: Forecast | None) -> list[str]:
    lines = [f"{names[0]} -> {names[1]}: {relation.formula}"]
    for name in PARAMETERS:
        lo, hi = relation.intervals[name]
        origin = f" ({relation.floors[name]})" if name in relation.floors else ""
        lines.append(f"{name:<9} {getattr(relation, name):.5g}{origin}  [{lo:.4g}, {hi:.4g}]")
    lo, hi = relation.x_range
    drawn = f"{relation.level:.0%} intervals resample {relation.resampling}"
    lines.append(f"pairs     {relation.n}, x from {lo:.4g} to {hi:.4g}; {drawn}")
    lines.append(f"verdict   {relation.verdict}, R2 {relation.r2:.4f}")
    lines += [f"  {warning}" for warning in relation.warnings]
    if forecast:
        ends = f"[{forecast.lo:.4g}, {forecast.hi:.4g}]"
        lines.append(f"at {forecast.at:.5g}: {forecast.value:.5g} {ends}")
        lines += [f"  {warning}" for warning in forecast.warnings]
    return lines
