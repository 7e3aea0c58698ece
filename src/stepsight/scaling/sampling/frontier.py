"""The measured Pareto frontier: settings that no other setting beats in both cost and error.

Every gain has an interval, and a step whose interval reaches 0 may be luck: it is not worth paying.
Where the images of a sweep are at hand, the interval is paired by image. From the table alone it is
made of both settings' own intervals,

    gain +- sqrt(h_1^2 + h_2^2) / |value_1|,

h half their widths. That leaves out that both were measured on the same images, whose hardness
cancels out in the difference: it is too wide, often several times, and errs to the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError, suggest
from stepsight.measures import measure
from stepsight.scaling.plain import plain
from stepsight.scaling.records import ScalingRecord, column
from stepsight.scaling.sampling.paired import MIN_IMAGES, FamilySetting, MetricTable, paired
from stepsight.scaling.sampling.sweeps import Cell, left_out, main_metrics, main_of, select

COSTS = {  # an image's, by name
    "calls": "total_calls",
    "gflop": "gflop_per_image",
    "ms": "ms_per_image",  # among many
    "latency": "latency_ms",  # alone
}
GAINS = ("gain", "gain_lo", "gain_hi", "paired")
UNPRICED = "Use another cost, or sweep again: early sweeps did not time a picture alone."


@dataclass(frozen=True)
class FrontierPoint:
    """A measured setting worth its cost."""

    record: ScalingRecord
    cost: float
    value: float
    gain: float  # relative improvement over the next cheaper point; nan for the cheapest


@dataclass(frozen=True)
class FrontierCell:
    """A cell of a sweep worth its cost."""

    cell: Cell
    cost: float
    gain: float  # relative improvement over the next cheaper cell; nan for the cheapest
    gain_lo: float = math.nan  # 95 % interval; nan where the cells have none
    gain_hi: float = math.nan
    paired: bool = False  # whether the interval is paired by image, or from the table alone

    @property
    def sure(self) -> bool:
        """Whether the step is worth paying: its gain is more than luck."""
        return self.gain_lo > 0

    @property
    def place(self) -> FamilySetting:
        """Which setting it is."""
        return FamilySetting(self.cell.family, *self.cell.setting)

    def to_dict(self) -> dict[str, Any]:
        """One level of keys for JSON; nan becomes None."""
        gains = {name: getattr(self, name) for name in GAINS}
        return plain(self.cell.columns | {"cost": self.cost, "sure": self.sure} | gains)


def pareto(cost: ArrayLike, error: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates; lower is better in both, "n" each -> "n".

    A point is dominated by one that is no worse in both and better in one. Equal points do not
    dominate each other. Points that are not finite are never on the frontier.
    """
    cost, error = np.asarray(cost, dtype=float), np.asarray(error, dtype=float)
    assert cost.shape == error.shape and cost.ndim == 1
    measured = np.isfinite(cost) & np.isfinite(error)
    mask = np.zeros(cost.shape, dtype=bool)
    best, best_cost = np.inf, np.inf
    for index in np.lexsort((error, cost)):
        ties = (error[index], cost[index]) == (best, best_cost)
        if measured[index] and (error[index] < best or ties):
            mask[index], best, best_cost = True, error[index], cost[index]
    return mask


def ascending(cost: ArrayLike, error: ArrayLike) -> list[int]:
    """The places of the points on the frontier, the cheapest first; "n" each."""
    (kept,) = np.nonzero(pareto(cost, error))
    return kept[np.argsort(np.asarray(cost, dtype=float)[kept], kind="stable")].tolist()


def frontier(
    cells: Sequence[Cell],
    task: str,
    *,
    metric: str | None = None,
    cost: str = "calls",
    tables: Sequence[MetricTable] = (),
) -> list[FrontierCell]:
    """The cells of one task that are worth their cost, over all samplers, sizes and checkpoints.

    cost: one of `COSTS`. metric: the main one of the task by default. tables: the images behind the
    cells; where they hold both sides of a step, the interval of its gain is paired.

    Raises:
        UserError: the task, metric or cost is unknown, was not measured, or mixes protocols.
    """
    if cost not in COSTS:
        raise UserError(f"There is no cost '{cost}'.{suggest(cost, COSTS)}")
    chosen = select(cells, task, metric or main_of(cells, task))
    costs = [float(getattr(cell, COSTS[cost])) for cell in chosen]
    if not np.isfinite(costs).any():
        raise UserError(f"The sweep holds no {COSTS[cost]} of {task}. {UNPRICED}")
    # Of cells that cost and err the same, as two samplers do in their first step, one is enough.
    order = {costs[i]: i for i in reversed(ascending(costs, [cell.error for cell in chosen]))}
    points = [FrontierCell(chosen[i], price, math.nan) for price, i in sorted(order.items())]
    for i, (before, point) in enumerate(zip(points, points[1:]), start=1):
        points[i] = _gained(before.cell, point)
    return _paired(points, tables)


def frontiers(
    cells: Sequence[Cell], *, cost: str = "calls", tables: Sequence[MetricTable] = ()
) -> dict[str, dict[str, Any]]:
    """frontier.json: for every task its main metric, the cost axis, the rows that hold no number of
    either and were left out, and the points in order."""
    rows = {}
    for task, metric in main_metrics(cells).items():
        points = frontier(cells, task, metric=metric, cost=cost, tables=tables)
        rows[task] = {
            "metric": metric,
            "cost": cost,
            "left_out": left_out(cells, task, metric, COSTS[cost]),
            "points": [point.to_dict() for point in points],
        }
    return rows


def _gained(before: Cell, point: FrontierCell) -> FrontierCell:
    """The point with its gain, and the interval that the cells' own give."""
    scale = abs(before.value) or math.nan
    gain = (before.error - point.cell.error) / scale
    half = math.hypot(*((cell.hi - cell.lo) / 2 for cell in (before, point.cell))) / scale
    return replace(point, gain=gain, gain_lo=gain - half, gain_hi=gain + half)


def _paired(points: Sequence[FrontierCell], tables: Sequence[MetricTable]) -> list[FrontierCell]:
    """The points with paired intervals of their gains, where the tables hold both sides."""
    first = points[0].cell
    tables_of = [
        table for table in tables if (table.task, table.metric) == (first.task, first.metric)
    ]
    there = {place for table in tables_of for place in table.places} & {
        point.place for point in points
    }
    if len(there) < 2:
        return list(points)
    both = paired(tables_of, there)
    sign = 1 if measure(first.metric).higher_is_better else -1
    worth = [points[0]]
    for before, point in zip(points, points[1:]):
        if {before.place, point.place} <= there and both.n:
            lo, hi = math.nan, math.nan
            if both.n >= MIN_IMAGES:
                change = both.change(before.place, point.place)
                lo, hi = sorted((sign * change.lo, sign * change.hi))
            point = replace(point, gain_lo=lo, gain_hi=hi, paired=True)
        worth.append(point)
    return worth


def frontier_table(
    records: Sequence[ScalingRecord], *, cost: str = "inference_flops"
) -> list[FrontierPoint]:
    """The non-dominated records in order of cost (any numeric field of the records).

    Raises:
        UserError: the records mix tasks, data, protocols or metrics, or lack the cost column.
    """
    kinds = {(r.task, r.dataset, r.protocol, r.metric, r.lower_is_better) for r in records}
    if len(kinds) > 1:
        raise UserError(
            f"A frontier compares one metric under one protocol, these records hold {len(kinds)}: "
            f"{sorted(' '.join(kind[:4]) for kind in kinds)}. Select one of them."
        )
    costs, values = column(records, cost), column(records, "value")
    sign = 1.0 if all(r.lower_is_better for r in records) else -1.0
    order = ascending(costs, sign * values)
    signs = sign * np.copysign(1.0, values)  # of metrics below 0 a quotient above 1 is a fall
    gains = [np.nan, *(signs[j] * (1 - values[i] / values[j]) for j, i in zip(order, order[1:]))]
    return [
        FrontierPoint(records[i], float(costs[i]), float(values[i]), float(gain))
        for i, gain in zip(order, gains)
    ]
