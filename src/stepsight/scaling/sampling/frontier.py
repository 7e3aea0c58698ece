"""The measured Pareto frontier: settings that no other setting beats in both cost and error.

Where the images of a sweep are at hand and not only its table, every gain has an interval, paired
by image: a step whose interval reaches 0 may be luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError, suggest
from stepsight.measures import measure
from stepsight.scaling.plain import plain
from stepsight.scaling.records import ScalingRecord, column
from stepsight.scaling.sampling.paired import FamilySetting, MetricTable, paired
from stepsight.scaling.sampling.sweeps import Cell, main_metrics, main_of, select, unmeasured

COSTS = {  # an image's, by name
    "calls": "total_calls",
    "gflop": "gflop_per_image",
    "ms": "ms_per_image",  # among many
    "latency": "latency_ms",  # alone
}
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
    gain_lo: float = math.nan  # 95 % interval; nan where the images are not at hand
    gain_hi: float = math.nan

    @property
    def place(self) -> FamilySetting:
        """Which setting it is."""
        return FamilySetting(self.cell.family, *self.cell.setting)

    def to_dict(self) -> dict[str, Any]:
        """One level of keys for JSON; nan becomes None."""
        gains = {"gain": self.gain, "gain_lo": self.gain_lo, "gain_hi": self.gain_hi}
        return plain(asdict(self.cell) | {"cost": self.cost} | gains)


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

    cost: one of `COSTS`. metric: the main one of the task by default. tables:
    the images behind the cells, which the intervals of the gains are made of.

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
        gain = (before.cell.error - point.cell.error) / (abs(before.cell.value) or math.nan)
        points[i] = replace(point, gain=gain)
    return _with_intervals(points, tables)


def frontiers(
    cells: Sequence[Cell], *, cost: str = "calls", tables: Sequence[MetricTable] = ()
) -> dict[str, dict[str, Any]]:
    """frontier.json: for every task its main metric, the cost axis, how many settings hold no
    number and were left out, and the points in order."""
    rows = {}
    for task, metric in main_metrics(cells).items():
        points = frontier(cells, task, metric=metric, cost=cost, tables=tables)
        rows[task] = {
            "metric": metric,
            "cost": cost,
            "unmeasured": unmeasured(cells, task, metric),
            "points": [point.to_dict() for point in points],
        }
    return rows


def _with_intervals(
    points: Sequence[FrontierCell], tables: Sequence[MetricTable]
) -> list[FrontierCell]:
    """The points with the intervals of their gains, where the tables hold both sides."""
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
        if {before.place, point.place} <= there:
            change = both.change(before.place, point.place)
            lo, hi = sorted((sign * change.lo, sign * change.hi))
            point = replace(point, gain_lo=lo, gain_hi=hi)
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
