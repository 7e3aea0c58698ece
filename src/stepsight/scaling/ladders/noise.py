"""How far runs scatter that differ in their seed alone: no forecast of one run can be closer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stepsight.scaling.ladders.forecast import Quantity, by_quantity, errors_of
from stepsight.scaling.records import ScalingRecord


class Scatter(NamedTuple):
    """Of one quantity, over the places that several seeds were run at."""

    deviation: float  # of the logarithm of a run's error: relative, where it is small
    places: int
    runs: int  # at these places


def scatter(records: Iterable[ScalingRecord]) -> dict[Quantity, Scatter]:
    """The standard deviation over seeds of each quantity that some place has several of, pooled
    over places with as many degrees of freedom as they have runs beyond the first. Of rising
    metrics it is that of what they lack to 1."""
    return {
        quantity: found
        for quantity, rows in by_quantity(records).items()
        if (found := _pooled(rows, errors_of(quantity, rows))) is not None
    }


def _pooled(rows: Sequence[ScalingRecord], errors: np.ndarray) -> Scatter | None:
    places: dict[object, list[float]] = defaultdict(list)
    for row, error in zip(rows, errors):
        if error > 0:
            place = row.model, row.images_seen, row.samples, row.parent.partition("_seed-")[0]
            places[place].append(math.log(error))
    several = [np.array(logs) for logs in places.values() if len(logs) > 1]
    if not several:
        return None
    squares = sum(float(((logs - logs.mean()) ** 2).sum()) for logs in several)
    runs = sum(map(len, several))
    return Scatter(math.sqrt(squares / (runs - len(several))), len(several), runs)
