"""`stepsight scaling loss-to-loss`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, one_of
from stepsight.cli.scaling.tables import Table, assignments
from stepsight.errors import UserError, suggest
from stepsight.scaling.fitting.quality import Expected
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.loss_to_loss.floored import PARAMETERS
from stepsight.scaling.loss_to_loss.floors import Floor, Origin
from stepsight.scaling.loss_to_loss.pairs import PAIRINGS, join, pair
from stepsight.scaling.loss_to_loss.relation import RESAMPLES, Relation, relate
from stepsight.scaling.plain import plain
from stepsight.scaling.records import FILE_NAME, read

Predicted = tuple[float, Expected]  # x, and what is expected of y
OF_TABLES = ("by", "group", "to", "on", "runs")
OF_RECORDS = ("hook", "task", "metric", "where", "x_where", "y_where")


class _Losses(NamedTuple):
    """Pairs, what their axes are, the runs that made them, and what was left out."""

    x: Sequence[float]
    y: Sequence[float]
    names: tuple[str, str]
    runs: Sequence[str] | None
    notes: Sequence[str]


@dataclass(frozen=True)
class Args:
    """Predict one loss or error of a model from another: y = K (x - E0)^kappa + E1.

    Of a table whose rows hold both (--x, --y), of one in which the rows of two groups correspond
    (--by COL --from A --to B --on COL), or of the records of runs (--hook). Floors that are known
    are given with their origin, --floor-y .026:measured or --floor-x 1.97+-.02:law; others are
    fitted. A floor that is not measured and comes without a deviation is as unsure as the pairs
    say.
    """

    # files or folders of runs with a records.jsonl
    records: Positional[Annotated[tuple[Path, ...], arg(metavar="[RECORDS...]")]] = ()
    csv: Path | None = None  # a table instead of records
    x: str | None = None  # column of the loss that is known; of records default: the hook's
    y: str | None = None  # column of the loss to predict; with --to default: that of --x
    by: str | None = None  # with --csv: column of groups, such as training data
    # the group that x is read from
    group: Annotated[str | None, arg(name="from")] = None
    to: str | None = None  # the group that y is read from, if another
    on: str | None = None  # with --to: columns COL[,COL] in which partners agree
    runs: str | None = None  # with --csv: column of runs, which resamples draw whole
    hook: Annotated[
        str | None, arg(help=f"of records, what is paired with what: {', '.join(PAIRINGS)}")
    ] = None
    task: str | None = None  # of records: only this task
    metric: str | None = None  # of records: only this metric
    where: tuple[str, ...] = ()  # of records: FIELD=VALUE of those that stand on both axes
    x_where: tuple[str, ...] = ()  # of records: FIELD=VALUE of those that stand on x
    y_where: tuple[str, ...] = ()  # of records: FIELD=VALUE of those that stand on y
    floor_x: str | None = None  # irreducible part of x: E0[+-SD][:ORIGIN]
    floor_y: str | None = None  # irreducible part of y: E1[+-SD][:ORIGIN]
    bootstrap: int = RESAMPLES  # resamples; 0 for no intervals
    level: float = LEVEL  # of intervals
    at: float | None = None  # predict y where x is this
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the relation, and the prediction. Raises UserError where there is nothing to relate."""
    if not 0 < args.level < 1:
        raise UserError(f"--level {args.level:g}: write a share between 0 and 1, such as .9.")
    at_least(0, "--bootstrap", args.bootstrap)
    if args.at is not None and not 0 < args.at < math.inf:
        raise UserError(f"--at {args.at:g}: write a loss, a number above 0.")
    losses = _of_table(args, args.csv) if args.csv else _of_records(args)
    for note in losses.notes:
        print(note, file=sys.stderr)
    relation = relate(
        losses.x,
        losses.y,
        floor_x=_floor("--floor-x", args.floor_x),
        floor_y=_floor("--floor-y", args.floor_y),
        groups=losses.runs,
        bootstrap=args.bootstrap,
        level=args.level,
    )
    forecast = None if args.at is None else (args.at, relation.forecast(args.at))
    if args.json:
        print(json.dumps(_row(losses.names, relation, forecast), indent=2))
    else:
        print("\n".join(_lines(losses.names, relation, forecast)))
    return 0


def _of_table(args: Args, csv: Path) -> _Losses:
    _refuse(args, OF_RECORDS, "are for records; a table is read with --csv, --x, --y, --by")
    if args.records:
        raise UserError("Give records or --csv, not both.")
    y = args.y or (args.x if args.to else None)
    if not (args.x and y):
        raise UserError("--csv needs --x and --y, columns of losses.")
    table = Table.read(csv)
    if args.to:
        return _joined(args, table, args.x, y)
    _refuse(args, ("on",), "joins two groups: say --to, the other one")
    both, notes = _filled(_group(args, table, args.group), (args.x, y))
    return _losses(args, both, both, (args.x, y), (args.x, y), notes)


def _joined(args: Args, table: Table, x: str, y: str) -> _Losses:
    """Rows of one group beside those of another that agree in the columns of --on."""
    if not (args.by and args.group and args.on):
        raise UserError("--to needs --by COL, --from GROUP and --on COL[,COL].")
    left, notes = _filled(_group(args, table, args.group), (x,))
    right, others = _filled(_group(args, table, args.to), (y,))
    columns = args.on.split(",")
    places = join(*(list(zip(*map(side.values, columns))) for side in (left, right)))
    if not places:
        raise UserError(f"{table.path}: no row of {args.group} agrees with one of {args.to}.")
    alone = len(left.rows) + len(right.rows) - 2 * len(places)
    notes = [*notes, *others, *([f"{alone} rows have no partner"] if alone else [])]
    lefts, rights = (side.at(at) for side, at in zip((left, right), zip(*places)))
    return _losses(
        args, lefts, rights, (x, y), (f"{x} of {args.group}", f"{y} of {args.to}"), notes
    )


def _losses(
    args: Args,
    left: Table,
    right: Table,
    columns: tuple[str, str],
    names: tuple[str, str],
    notes: Sequence[str],
) -> _Losses:
    x, y = left.numbers(columns[0]).tolist(), right.numbers(columns[1]).tolist()
    return _Losses(x, y, names, left.texts(args.runs) if args.runs else None, notes)


def _group(args: Args, table: Table, group: str | None) -> Table:
    """The rows of one group, or all where none is named."""
    if args.by is None or group is None:
        if args.by or group:
            raise UserError("--by COL and --from GROUP go together.")
        return table
    groups = table.texts(args.by)
    if group not in groups:
        known = suggest(group, set(groups))
        raise UserError(f"{table.path}: {args.by} is never '{group}'.{known}")
    return table.only(name == group for name in groups)


def _filled(table: Table, columns: Sequence[str]) -> tuple[Table, list[str]]:
    """The rows that have all of the numbers, and a note on the others."""
    cells = zip(*map(table.texts, columns))
    kept = table.only(all(cell.strip() for cell in row) for row in cells)
    if not kept.rows:
        raise UserError(f"{table.path}: no row has {' and '.join(columns)}.")
    missing = len(table.rows) - len(kept.rows)
    return kept, [f"left out {missing} rows without {' or '.join(columns)}"] if missing else []


def _of_records(args: Args) -> _Losses:
    _refuse(args, OF_TABLES, "are for tables; records are paired with --hook")
    if not args.records:
        raise UserError(
            f"Name run folders that hold a {FILE_NAME} and a --hook, or a table (--csv)."
        )
    if not args.hook:
        raise UserError(f"Records need a --hook.{suggest('', PAIRINGS)}")
    one_of("--hook", args.hook, list(PAIRINGS))
    records, notes = read(*args.records)
    both = assignments("--where", args.where)
    both |= {name: value for name in ("task", "metric") if (value := getattr(args, name))}
    fixed = PAIRINGS[args.hook].x_where  # the hook says what stands there
    left = {name: value for name, value in both.items() if name not in fixed}
    paired = pair(
        records,
        args.hook,
        x=args.x,
        y=args.y,
        x_where=left | assignments("--x-where", args.x_where),
        y_where=both | assignments("--y-where", args.y_where),
    )
    x, y, runs = ([getattr(p, name) for p in paired.pairs] for name in ("x", "y", "label"))
    return _Losses(x, y, (paired.x, paired.y), runs, [*notes, *paired.notes])


def _refuse(args: Args, names: Sequence[str], why: str) -> None:
    given = [name for name in names if getattr(args, name) not in (None, ())]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-').replace('group', 'from')}" for name in given)
        raise UserError(f"{flags} {why}.")


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
        return Floor(
            float(value), known[origin or "given"], float(deviation) if deviation else None
        )
    except ValueError as error:
        raise UserError(f"{flag} {text}: write a number, such as .026:measured.") from error


def _row(names: tuple[str, str], relation: Relation, forecast: Predicted | None) -> dict[str, Any]:
    row = {"x": names[0], "y": names[1], **relation.to_dict()}
    if forecast is None:
        return row
    at, prediction = forecast
    return row | {"prediction": plain({"at": at} | vars(prediction))}


def _lines(names: tuple[str, str], relation: Relation, forecast: Predicted | None) -> list[str]:
    lines = [f"{names[0]} -> {names[1]}: {relation.formula}"]
    for name in PARAMETERS:
        lo, hi = relation.intervals[name]
        origin = f" ({_known(relation, name)})" if name in relation.floors else ""
        lines.append(f"{name:<9} {getattr(relation, name):.5g}{origin}  [{lo:.4g}, {hi:.4g}]")
    lo, hi = relation.x_range
    drawn = f"{relation.level:.0%} intervals resample {relation.resampling}"
    lines.append(f"pairs     {relation.n}, x from {lo:.4g} to {hi:.4g}; {drawn}")
    lines.append(f"verdict   {relation.verdict}, R2 {relation.r2:.4f}")
    lines.append(f"back-test {_history(relation)}")
    lines += [f"  {warning}" for warning in relation.warnings]
    if forecast:
        at, prediction = forecast
        ends = f"[{prediction.lo:.4g}, {prediction.hi:.4g}]"
        lines.append(f"at {at:.5g}: {prediction.value:.5g} {ends}, reach {prediction.reach:.2g}")
        lines += [f"  {warning}" for warning in (*prediction.warnings, prediction.basis)]
    return lines


def _known(relation: Relation, name: str) -> str:
    """Where a floor is known from, and how well."""
    unsure = relation.deviations.get(name)
    return relation.floors[name] + (f", +-{unsure:.2g}" if unsure else "")


def _history(relation: Relation) -> str:
    past = relation.backtest
    if past is None:
        return "none: too few pairs to hide any"
    return (
        f"{past.hits} of {past.of} hidden pairs inside {relation.level:.0%}, up to "
        f"{past.reach:.2g} times beyond the rest; median error {past.error:.2%}"
    )
