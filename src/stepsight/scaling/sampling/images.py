"""The images behind a sweep's table: per_sample.csv, which `evaluate --sweep` leaves beside it.

A table of settings says how sure each value is, not how sure their differences are. The images do,
as all settings were measured on them. They are taken only where they give the table's own values,
since a file of another sweep may lie there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepsight.measures import measure
from stepsight.scaling.intervals import Statistic, quotient
from stepsight.scaling.reading import read_table
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.paired import Averaged, MetricTable, Numbers
from stepsight.scaling.sampling.sweeps import Cell, Family

FILE = "per_sample.csv"
AGREED = 1e-6  # relative difference from the table's values
Row = Mapping[str, str]
_Of = tuple[str, Family, int, int]  # task, family, NFE, members


class _Sums(NamedTuple):
    """How a metric is made of sums over images, and what an image adds to them."""

    averaging: Averaged
    added: Callable[[Row], list[float]]
    of: Statistic


def tables_beside(sweep: Path, cells: Sequence[Cell]) -> list[MetricTable]:
    """The images of every task and metric of `cells`, from the file beside `sweep`, one table a
    family. What the file lacks, or what does not give the values of the cells, has none.

    Raises DataFormatError where the file is no table.
    """
    path = sweep.parent / FILE
    if not path.is_file():
        return []
    rows: dict[_Of, dict[str, Row]] = {}
    wanted = {(cell.task, cell.family, *cell.setting) for cell in cells}
    for row in read_table(path).numbered.values():
        if (place := _place(row)) in wanted:
            rows.setdefault(place, {})[row["key"]] = row
    kinds: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if math.isfinite(cell.value):
            kinds.setdefault((cell.task, cell.metric), []).append(cell)
    return [table for of_kind in kinds.values() for table in _tables(of_kind, rows)]


def _place(row: Row) -> _Of | None:
    try:
        return row["task"], Family.of(row), int(row["nfe"]), int(row["members"])
    except (KeyError, ValueError):
        return None  # of another program


def _tables(cells: Sequence[Cell], rows: Mapping[_Of, Mapping[str, Row]]) -> list[MetricTable]:
    """Of one task and metric; [] where no way to add images up gives the values of the cells."""
    behind = [rows.get((cell.task, cell.family, *cell.setting), {}) for cell in cells]
    if not all(behind):
        return []
    for way in _ways(cells[0].metric, next(iter(behind[0].values()))):
        numbers = [np.array([way.added(row) for row in of.values()]) for of in behind]
        if all(_agrees(way.of, sums, cell.value) for cell, sums in zip(cells, numbers)):
            added = dict(zip(((c.family, c.setting) for c in cells), zip(behind, numbers)))
            return [_table(way, family, added) for family in by_family(cells).items()]
    return []


def _table(
    way: _Sums,
    family: tuple[Family, list[Cell]],
    added: Mapping[tuple[Family, tuple[int, int]], tuple[Mapping[str, Row], Numbers]],
) -> MetricTable:
    whose, cells = family
    found = {cell.setting: added[whose, cell.setting] for cell in cells}
    keys = sorted(set.intersection(*(set(rows) for rows, _ in found.values())))
    settings = {}
    for setting, (rows, numbers) in found.items():
        index = {key: i for i, key in enumerate(rows)}
        settings[setting] = numbers[[index[key] for key in keys]]
    about = {"task": cells[0].task, "metric": cells[0].metric, "family": whose, "keys": keys}
    return MetricTable(**about, settings=settings, of=way.of, averaging=way.averaging)


def _ways(metric: str, row: Row) -> list[_Sums]:
    """The ways of adding images up that the columns allow, pooled ones first (`evaluation`)."""
    kind, stated = measure(metric), f"uncertainty.{metric}"
    column = stated if row.get(stated) else metric
    ways = []
    if metric == "miou" and (parts := _classes(row)):
        ways.append(
            _Sums("pooled", lambda row: [_number(row[c]) for c in parts], _mean_of_quotients)
        )
    if row.get(kind.count):
        ways.append(_Sums("pooled", _weighted(column, kind.count, kind.power), _rooted(kind.power)))
    return [*ways, _Sums("per image", lambda row: [_number(row.get(column)), 1.0], quotient)]


def _classes(row: Row) -> list[str]:
    return [c for part in ("intersection.", "union.") for c in row if c.startswith(part) and row[c]]


def _weighted(column: str, count: str, power: int) -> Callable[[Row], list[float]]:
    def added(row: Row) -> list[float]:
        weight = _number(row.get(count))
        return [weight * _number(row.get(column)) ** power if weight else 0.0, weight]

    return added


def _rooted(power: int) -> Statistic:
    return lambda sums: quotient(sums) ** (1 / power)


def _mean_of_quotients(sums: Numbers) -> Numbers:
    """Of intersections and unions of classes, "r 2k" -> "r", over the classes that occur."""
    half = sums.shape[1] // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nanmean(sums[:, :half] / sums[:, half:], axis=1)


def _agrees(of: Statistic, sums: Numbers, value: float) -> bool:
    known = sums[np.isfinite(sums).all(axis=1)]
    told = float(of(known.sum(axis=0, keepdims=True))[0]) if len(known) else math.nan
    return math.isclose(told, value, rel_tol=AGREED, abs_tol=1e-12)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
