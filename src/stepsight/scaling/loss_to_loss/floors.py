"""Irreducible losses: where a floor is known from, and how well.

A *measured* floor (the error of a codec's round trip, below which no model that answers through it
can fall) is exact unless it says otherwise. The floor of a *law*, or one *given* without a word, is
an estimate. Where it comes without a deviation, the pairs say how far off it may be: they prefer a
floor of their own, and how far that lies from the stated one is the only evidence there is
(`doubts`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from stepsight.errors import UserError
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.search import Problem, minimise
from stepsight.scaling.loss_to_loss.floored import MARGIN

Origin = Literal["given", "measured", "law", "fitted"]
PLACES = (2, 3)  # of E0 and E1 among the parameters


class Floor(NamedTuple):
    """An irreducible loss, where it is known from, and how well."""

    value: float
    origin: Origin = "given"
    deviation: float | None = None  # standard; None: exact if measured, else what the pairs say

    @property
    def exact(self) -> bool:
        return self.deviation == 0 or (self.deviation is None and self.origin == "measured")

    @property
    def doubted(self) -> bool:
        """Whether the pairs are to say how far off it may be."""
        return self.deviation is None and not self.exact


Floors = Sequence[Floor | None]  # of x and of y; None: fitted


def checked(name: str, values: Array, floor: Floor | None) -> Floor | None:
    """The floor of `values` "n". Raises UserError where it cannot be one."""
    if floor and not 0 <= floor.value < values.min():
        raise UserError(
            f"--floor-{name} {floor.value:g} ({floor.origin}) must lie between 0 and the smallest "
            f"{name}, {values.min():g}: a loss below its floor shows that the floor is wrong."
        )
    if floor and not 0 <= (floor.deviation or 0) < math.inf:
        raise UserError(f"--floor-{name}: a deviation of {floor.deviation:g} is none.")
    return floor


def doubts(redrawn: Problem, q: Array, floors: Floors) -> list[float]:
    """Standard deviations of E0 and E1 in the units of the problem; nan where one is fitted.

    A doubted floor is refitted to every resample with the other held where it is. The root mean
    square of its moves counts both how far the pairs would have it elsewhere and how well they know
    that. Two doubted floors make up for each other: what moves one tells of the errors of both, and
    so half of the variance is put on each.
    """
    found = [math.nan if floor is None else floor.deviation or 0.0 for floor in floors]
    share = 1 / max(sum(floor is not None and floor.doubted for floor in floors), 1)
    for i, floor in enumerate(floors):
        if floor and floor.doubted:
            moves = _refitted(redrawn, q, PLACES[i]) - q[0, PLACES[i]]
            found[i] = math.sqrt(share * np.mean(moves**2))
    return found


def _refitted(redrawn: Problem, q: Array, place: int) -> Array:
    """The floor at a place of the parameters, "m" of every resample, with the other one at `q`."""
    lower, upper = redrawn.lower.copy(), redrawn.upper.copy()
    lower[..., PLACES] = upper[..., PLACES] = q[0, PLACES]
    least = redrawn.u.min() if place == PLACES[0] else redrawn.v.min()
    lower[..., place], upper[..., place] = 0.0, least * (1 - MARGIN)
    data = redrawn._replace(lower=lower, upper=upper)
    return minimise(data, np.repeat(q, len(redrawn.v), axis=0)).q[:, place]


def drawn(
    redrawn: Problem, q: Array, floors: Floors, deviations: Sequence[float], seed: int
) -> Problem:
    """The same resamples, each with floors that could be the true ones, below all values: normal,
    one from each of `count` equal shares, so that the ends of intervals depend little on luck."""
    rng, count = np.random.default_rng((seed, 1)), len(redrawn.v)
    lower, upper = (np.tile(ends, (count, 1)) for ends in (redrawn.lower, redrawn.upper))
    least = redrawn.u.min(), redrawn.v.min()
    for place, floor, deviation, end in zip(PLACES, floors, deviations, least):
        if floor:
            off = deviation * ndtri((rng.permutation(count) + 0.5) / count)
            values = np.clip(q[0, place] + off, 0, end * (1 - MARGIN))
            lower[:, place] = upper[:, place] = values
    return redrawn._replace(lower=lower, upper=upper)
