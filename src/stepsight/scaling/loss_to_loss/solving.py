"""One fit of the relation to pairs: its parameters, those of resamples, and how it bends.

With both floors known the fit is a straight line in logs, else a search. Resamples draw the pairs
anew, or whole runs, and with them the floors as well as these are known (`floors`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from stepsight.scaling.fitting.form import MAX_LOG, Array
from stepsight.scaling.fitting.resampling import UNKNOWN, Ends, pairs, predictive, resampled
from stepsight.scaling.fitting.search import Optima, Problem, best_start, minimise, problem
from stepsight.scaling.intervals import half_width, tails
from stepsight.scaling.loss_to_loss.floored import TINY, Floored, relation_at, straight
from stepsight.scaling.loss_to_loss.floors import PLACES, Floor, Floors, doubts, drawn


@dataclass(frozen=True)
class Solution:
    """Parameters K, kappa, E0, E1; nan where the pairs are too few to determine them."""

    theta: Array  # "4"
    draws: Array  # of resamples, "m 4"
    scatter: Array  # log y - log of the curve, "n"
    deviations: tuple[float, float]  # of E0 and E1: standard; nan where fitted
    bends: Array  # "m", `_bends`; none with a fitted floor
    resampling: str  # what was drawn: pairs, runs, or none
    free: int  # parameters fitted to the pairs
    converged: bool = True  # whether the search for them found an optimum

    def ends(self, x: float, level: float) -> Ends:
        """Where a new y at x should fall, by the resamples and the scatter; nan without draws.

        Resamples of few pairs are as narrow as a normal interval where Student's t belongs."""
        if not len(self.draws):
            return UNKNOWN
        curves = np.log(np.maximum(relation_at(self.draws, np.array(x)), TINY))
        student = float(stdtrit(max(len(self.scatter) - self.free, 1), tails(level)[1]))
        return stretched(
            predictive(curves, self.scatter, self.free, level), student / half_width(level)
        )


def stretched(ends: Ends, factor: float) -> Ends:
    """An interval of positive numbers, wider by a factor in logs."""
    lo, hi = np.log(np.maximum(ends, TINY))
    middle, half = (lo + hi) / 2, factor * (hi - lo) / 2
    lo, hi = np.exp(np.clip([middle - half, middle + half], -MAX_LOG, MAX_LOG)).tolist()
    return lo, hi


def parameters_of(floors: Floors) -> int:
    """How many parameters are fitted: K, kappa, and the floors that are not known."""
    return 2 + sum(floor is None for floor in floors)


def solve(
    x: Array,
    y: Array,
    floors: Floors,
    groups: Sequence[Hashable] | None,
    bootstrap: int,
    seed: int,
) -> Solution:
    """Fit to pairs "n", above their floors; a floor of None is fitted. Resamples draw whole groups
    where there are at least three."""
    free = parameters_of(floors)
    units = _unit(x), _unit(y)
    known = tuple(floor and floor.value / unit for floor, unit in zip(floors, units))
    form = Floored(units=units, known=(known[0], known[1]))
    data = problem(form, x[:, None] / units[0], y / units[1])
    if len(np.unique(x)) < free:
        return _bare(np.full(4, np.nan), x, y, free)
    best = _optima(data, floors)
    q, converged = best.q, bool(best.converged.all())
    theta = form.natural(q, data.u)[0]
    resampler = pairs(data.v, groups)
    redrawn = resampled(
        data, resampler, bootstrap, seed, lambda kept: len(np.unique(x[kept])) >= free
    )
    bare = replace(_bare(theta, x, y, free), converged=converged)
    if not len(redrawn.v):
        return bare
    deviations = doubts(redrawn, q, [_scaled(*one) for one in zip(floors, units)])
    inside = drawn(redrawn, q, floors, deviations, seed)
    found = _optima(inside, floors, q).q
    return replace(
        bare,
        draws=form.natural(found, data.u),
        deviations=(deviations[0] * units[0], deviations[1] * units[1]),
        bends=_bends(inside, q, floors),
        resampling="pairs" if resampler.kind == "points" else resampler.kind,
    )


def _bare(theta: Array, x: Array, y: Array, free: int) -> Solution:
    """Without resamples."""
    scatter = np.log(y / np.maximum(relation_at(theta, x), TINY))
    return Solution(
        theta, np.empty((0, 4)), scatter, (math.nan, math.nan), np.empty(0), "none", free
    )


def _unit(values: Array) -> float:
    """A power of two near the mean: dividing by it, a known floor stays what it is."""
    return 2.0 ** round(math.log2(values.mean()))


def _scaled(floor: Floor | None, unit: float) -> Floor | None:
    return floor and floor._replace(deviation=floor.deviation and floor.deviation / unit)


def _optima(data: Problem, floors: Floors, near: Array | None = None) -> Optima:
    """Inner parameters "b 4": straight lines in logs where both floors are known, else searches,
    from `near` if that is given."""
    if None not in floors:
        e0, e1 = np.atleast_2d(data.lower)[:, PLACES].T
        lines = straight(e0, e1, data.u, data.v, data.weights)
        return Optima(lines, np.zeros(len(lines)), np.ones(len(lines), dtype=bool))
    if near is None:
        return best_start(data)
    return minimise(data, np.repeat(near, len(data.v), axis=0))


def _bends(data: Problem, q: Array, floors: Floors) -> Array:
    """From a parabola in logs above the floors: how much the local exponent changes from the
    smallest x to the largest, over the exponent in the middle; "m" of every resample.

    Floors are those drawn, but doubted ones as stated: their doubt comes from such a bend, and
    would excuse any. A fitted floor has taken it up already.
    """
    if None in floors:
        return np.empty(0)
    doubted = [floor is not None and floor.doubted for floor in floors]
    e0, e1 = np.where(doubted, q[:, PLACES], data.lower[:, PLACES]).T[..., None]
    u, v = np.log(data.u[:, 0] - e0), np.log(data.v - e1)
    u = u - np.average(u, axis=1, weights=data.weights)[:, None]
    root = np.sqrt(data.weights)[..., None]
    rows = root * np.stack([np.ones_like(u), u, u**2], axis=2)
    _, slope, bend = (np.linalg.pinv(rows) @ (root * v[..., None]))[..., 0].T
    return 2 * bend * np.ptp(u, axis=1) / np.maximum(np.abs(slope), TINY)
