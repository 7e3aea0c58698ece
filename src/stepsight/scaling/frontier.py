"""The measured Pareto frontier: settings that no other setting beats in both cost and error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError
from stepsight.scaling.records import ScalingRecord, column


@dataclass(frozen=True)
class FrontierPoint:
    """A measured setting worth its cost."""

    record: ScalingRecord
    cost: float
    value: float
    gain: float  # relative improvement over the next cheaper point; nan for the cheapest


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
    (kept,) = np.nonzero(pareto(costs, sign * values))
    order = kept[np.argsort(costs[kept], kind="stable")]
    gains = [np.nan, *(sign * (1 - values[i] / values[j]) for j, i in zip(order, order[1:]))]
    return [
        FrontierPoint(records[i], float(costs[i]), float(values[i]), float(gain))
        for i, gain in zip(order, gains)
    ]
