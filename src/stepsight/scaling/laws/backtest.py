"""What forecasts of a law were worth so far: its own history, told again and scored.

A rolling origin (Tashman 2000, Int. J. Forecasting 16:437): the points beyond it along an axis are
hidden, the law is fitted to the others, and each hidden point is forecast as if it had not been
made. The axes are the ways to extrapolate: the one input, or each of several inputs and their
product. Origins lie in the upper half of an axis, as that is where a forecast starts from. Runs are
hidden whole, since a checkpoint betrays the others of its run.

A forecast's error is measured in deviations that the law expects of it, its scatter and what its
parameters leave open at that reach. In that unit errors at different reach are comparable, and
their signed quantiles widen or shift the next interval (split conformal prediction with normalised
scores: Lei et al. 2018, J. Am. Stat. Assoc. 113:1094). A few correlated errors are no quantile, so
beside them count as many as `PRIOR` drawn from Student's t, what the law says of itself; where
nothing can be hidden that is all there is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.fitting.search import Optima, Problem, best_of
from stepsight.scaling.intervals import PREDICTIVE, tails
from stepsight.scaling.laws.diagnosis import MIN_LEVELS, judged_from

PRIOR = 10.0  # hidden points that the law's own interval counts as
GRAIN = 200  # quantiles that stand for Student's t
ORIGINS = {1: 6}  # an axis, by number of inputs
SEVERAL = 4
STARTS = 3  # of a refit, beside the optimum of all points


@dataclass(frozen=True)
class Backtest:
    """Hidden points, and how many of their intervals held."""

    axis: str  # along which points were hidden, such as "params, images, params x images"
    hits: int  # of 90 % intervals as they would have been given at that origin
    of: int
    reach: float  # of the farthest: its place along the axis over the largest one that was kept
    error: float  # median of |log error|
    bias: float  # median of log forecast - log outcome: above 0 forecasts were too pessimistic


class HiddenForecasts(NamedTuple):
    """Forecasts of hidden points, "m", in the order of their origins along each axis."""

    axis: NDArray[np.intp]
    origin: Array  # place of the last point kept, in logs
    place: Array  # of the hidden point
    error: Array  # log forecast - log outcome
    deviation: Array  # of the error, as the law expects it
    spare: Array  # degrees of freedom of that


def axes(u: Array, names: Sequence[str]) -> dict[str, Array]:
    """Places along each way to extrapolate, "n", by name; `u` "n d" are logs."""
    if len(names) == 1:
        return {names[0]: u[:, 0].round(9)}
    spread = {
        name: column.round(9)
        for name, column in zip(names, u.T)
        if len(np.unique(column.round(9))) > MIN_LEVELS
    }
    return spread | {" x ".join(names): u.sum(axis=1).round(9)}


def roll(
    data: Problem, best: Optima, names: Sequence[str], groups: Sequence[Hashable] | None
) -> HiddenForecasts:
    """Forecast every hidden point from every origin."""
    form, u = data.form, data.u
    assert isinstance(form, LogForm)
    owner = np.unique([str(label) for label in groups], return_inverse=True)[1] if groups else None
    found = [
        (number, origin, along, kept)
        for number, along in enumerate(axes(u, names).values())
        for origin, kept in _origins(form, u, along, owner)
    ]
    if not found:
        return HiddenForecasts(np.zeros(0, dtype=int), *np.zeros((5, 0)))
    weights = np.array([kept for *_, kept in found], dtype=float)
    q = best_of(data._replace(weights=weights), _starts(data, best, weights)).q
    curves, slopes = form.curve(q, u), form.jacobian(q, u)
    rows = []
    for (number, origin, along, kept), curve, slope in zip(found, curves, slopes):
        hidden = np.flatnonzero(along > origin)
        left = (data.v - curve)[kept]
        runs = None if owner is None else owner[kept]
        deviation, spare = deviations(slope[kept], left, slope[hidden], runs)
        rows += [
            (number, origin, along[j], curve[j] - data.v[j], d, spare)
            for j, d in zip(hidden, deviation)
        ]
    number, *columns = np.array(rows).T
    return HiddenForecasts(number.astype(int), *columns)


def _origins(form: LogForm, u: Array, along: Array, owner: Array | None):
    """The last place kept, and what is kept with it."""
    places = np.unique(along)
    most = ORIGINS.get(u.shape[1], SEVERAL)
    for place in places[(len(places) - 1) // 2 : -1][-most:]:
        kept = along <= place
        if owner is not None:
            kept &= ~np.isin(owner, owner[~kept])
        levels = [len(np.unique(column[kept])) for column in u.T]
        enough = len(np.unique(u[kept], axis=0)) >= judged_from(form)
        if enough and (len(levels) == 1 or min(levels) >= MIN_LEVELS):
            yield place, kept


def _starts(data: Problem, best: Optima, weights: Array) -> Array:
    """The optimum of all points, and those starts of the form that are best for each refit."""
    starts = np.clip(data.form.starts(data.u, data.v), data.lower, data.upper)
    off = np.abs(data.form.curve(starts, data.u) - data.v)
    inner = np.minimum(off, data.huber)
    objective = weights @ (inner * (off - 0.5 * inner)).T
    chosen = np.argsort(objective, axis=1)[:, :STARTS]
    first = np.repeat(best.q[None], len(weights), axis=0)
    return np.concatenate([first, starts[chosen]], axis=1)


def deviations(slopes: Array, left: Array, at: Array, owner: Array | None) -> tuple[Array, float]:
    """Standard deviations of new points at slopes `at` "m k", and their degrees of freedom.

    `slopes` "n k" and residuals `left` "n" of the fit; the scatter of runs, `owner`, adds to that
    of points (one-way random effects).
    """
    n, k = slopes.shape
    inverse = np.linalg.pinv(slopes.T @ slopes, rcond=1e-10, hermitian=True)
    within = float(left @ left) / max(n - k, 1)
    if owner is None or len(np.unique(owner)) == n:
        spread = np.einsum("mi,ij,mj->m", at, inverse, at)
        return np.sqrt(within * (1 + spread)), float(max(n - k, 1))
    member = (owner[:, None] == np.unique(owner)).astype(float)
    size = member.sum(axis=0)
    means = member.T @ left / size
    runs = len(size)
    inside = float(np.sum((left - member @ means) ** 2)) / max(n - runs, 1)
    spare = max(runs - 1, 1)
    between = max(float(size @ means**2) / spare - inside, 0.0) / (n / runs)
    projected = inverse @ slopes.T
    shared = projected @ member
    covariance = inside * projected @ projected.T + between * shared @ shared.T
    spread = np.einsum("mi,ij,mj->m", at, covariance, at)
    return np.sqrt(inside + between + spread), float(spare)


def stretch(scores: Array, spare: float, level: float) -> tuple[float, float]:
    """Ends of the interval in deviations, from signed scores "m" of earlier forecasts, outcome
    above forecast being positive, beside Student's t of `spare` degrees of freedom."""
    own = stdtrit(spare, (np.arange(GRAIN) + 0.5) / GRAIN)
    values = np.concatenate([own, scores])
    weights = np.concatenate([np.full(GRAIN, PRIOR / GRAIN), np.ones(len(scores))])
    order = np.argsort(values)
    share = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    lo, hi = np.interp(tails(level), share, values[order])
    return float(lo), float(hi)


def summary(trials: HiddenForecasts, names: Sequence[str], u: Array) -> Backtest | None:
    """Hits are of intervals that know the outcomes up to their origin and no others."""
    if not len(trials.error):
        return None
    scores = -trials.error / trials.deviation
    hits = 0
    for axis, origin in {*zip(trials.axis.tolist(), trials.origin.tolist())}:
        here = (trials.axis == axis) & (trials.origin == origin)
        known = (trials.axis == axis) & (trials.origin < origin) & (trials.place <= origin)
        lo, hi = stretch(scores[known], float(trials.spare[here][0]), PREDICTIVE)
        hits += int(np.sum((lo <= scores[here]) & (scores[here] <= hi)))
    return Backtest(
        axis=", ".join(axes(u, names)),
        hits=hits,
        of=len(scores),
        reach=float(np.exp((trials.place - trials.origin).max())),
        error=float(np.median(np.abs(trials.error))),
        bias=float(np.median(trials.error)),
    )
