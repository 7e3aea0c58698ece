"""What forecasts of a law were worth so far: its own history, told again and scored.

A rolling origin (Tashman 2000, Int. J. Forecasting 16:437): the points beyond it along an axis are
hidden, the law is fitted to the others, and each hidden point is forecast as if it had not been
made. The axes are the ways to extrapolate: the one input, or each of several inputs and their
product. Origins lie in the upper half of an axis, as that is where a forecast starts from. Runs are
hidden whole, since a checkpoint betrays the others of its run.

A forecast's error is measured in deviations that the law expects of it (`spread`). In that unit
errors at different reach are comparable, and their signed quantiles widen and shift the next
interval (split conformal prediction with normalised scores: Lei et al. 2018, J. Am. Stat. Assoc.
113:1094). A few correlated errors are no quantile, so beside them counts what the law says of
itself, Student's t, and where nothing can be hidden that is all there is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.fitting.search import Optima, Problem, best_of
from stepsight.scaling.intervals import PREDICTIVE, tails
from stepsight.scaling.laws.diagnosis import MIN_LEVELS, judged_from
from stepsight.scaling.laws.spread import Spread, spread_of

PRIOR = 12.0  # earlier forecasts that what the law says of itself counts as
NARROWEST = 0.9  # of its own interval: luck in a few forecasts is no reason to trust it more
GRAIN = 200  # quantiles that stand for Student's t
ORIGINS, ORIGINS_OF_SEVERAL = 6, 4  # an axis, of one input and of several
LEFT_OUT = 0.25  # of the places, those at the top, for the held-out error
STARTS, STEPS = 3, 40  # of a refit, beside the optimum of all points


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

    axis: Array  # its number
    origin: Array  # place of the last point kept, in logs
    place: Array  # of the hidden point
    run: Array  # its run
    error: Array  # log forecast - log outcome
    deviation: Array  # of the error, as the law expects it
    spare: Array  # degrees of freedom of that

    @property
    def scores(self) -> Array:
        """In deviations, positive where the outcome lies above its forecast."""
        return -self.error / self.deviation

    @classmethod
    def none(cls) -> HiddenForecasts:
        return cls(*np.zeros((7, 0)))

    def some(self, which: NDArray[np.bool_]) -> HiddenForecasts:
        return HiddenForecasts(*(column[which] for column in self))


def axes(u: Array, names: Sequence[str]) -> dict[str, Array]:
    """The ways to extrapolate, by name: logs `u` "n d" times such a "d" are places along one."""
    every = np.eye(len(names))
    if len(names) == 1:
        return {names[0]: every[0]}
    long = [len(np.unique(column.round(9))) > MIN_LEVELS for column in u.T]
    alone = {name: one for name, one, enough in zip(names, every, long) if enough}
    return alone | {" x ".join(names): np.ones(len(names))}


def roll(
    data: Problem, best: Optima, names: Sequence[str], owner: NDArray[np.intp]
) -> tuple[HiddenForecasts, float]:
    """Forecast every hidden point from every origin; and the root mean square of log errors at the
    top of the points, of a fit that does not see them, nan where those do not determine one."""
    form, u = data.form, data.u
    assert isinstance(form, LogForm)
    found = [
        (number, origin, along, kept)
        for number, direction in enumerate(axes(u, names).values())
        for along in [(u @ direction).round(9)]
        for origin, kept in _origins(form, u, along, owner)
    ]
    top = ~_below_the_top(u)
    lower = ~np.isin(owner, owner[top])
    determined = len(np.unique(u[lower], axis=0)) >= len(form.parameters)
    weights = np.array([*(kept for *_, kept in found), *[lower] * determined], dtype=float)
    if not len(weights):
        return HiddenForecasts.none(), math.nan
    q = best_of(data._replace(weights=weights), _starts(data, best, weights), STEPS).q
    curves, slopes = form.curve(q, u), form.jacobian(q, u)
    rows = []
    for (number, origin, along, kept), curve, slope in zip(found, curves, slopes):
        hidden = np.flatnonzero(along > origin)
        left = (data.v - curve)[kept]
        spread = spread_of(slope[kept], left, owner[kept], data.huber)
        rows += [
            (number, origin, along[j], owner[j], curve[j] - data.v[j], deviation, spread.spare)
            for j, deviation in zip(hidden, spread.deviations(slope[hidden]))
        ]
    off = (curves[-1] - data.v)[top]
    held_out = float(np.sqrt(np.mean(off**2))) if determined else math.nan
    return HiddenForecasts(*np.array(rows).T) if rows else HiddenForecasts.none(), held_out


def _below_the_top(u: Array) -> NDArray[np.bool_]:
    """All but the places of the largest product of inputs."""
    size = u.sum(axis=1).round(9)
    places = np.unique(size)
    return size < places[-math.ceil(LEFT_OUT * len(places))]


def _origins(
    form: LogForm, u: Array, along: Array, owner: NDArray[np.intp]
) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """The last place kept, and what is kept with it."""
    places = np.unique(along)
    most = ORIGINS if u.shape[1] == 1 else ORIGINS_OF_SEVERAL
    size = 0
    for place in places[(len(places) - 1) // 2 : -1][-most:]:
        kept = along <= place
        kept &= ~np.isin(owner, owner[~kept])
        if kept.sum() == size:  # the same runs as before
            continue
        size = kept.sum()
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


def stretch(trials: HiddenForecasts, spare: float, level: float) -> tuple[float, float]:
    """Ends of the interval in deviations: quantiles of the scores of earlier forecasts, of which
    those of one run from one origin count once together, and of Student's t of `spare` degrees of
    freedom, which counts as `PRIOR` of them."""
    own = stdtrit(spare, (np.arange(GRAIN) + 0.5) / GRAIN)
    which = [*zip(trials.axis.tolist(), trials.origin.tolist(), trials.run.tolist())]
    times = Counter(which)
    values = np.concatenate([own, trials.scores])
    weights = np.concatenate([np.full(GRAIN, PRIOR / GRAIN), [1 / times[one] for one in which]])
    order = np.argsort(values)
    share = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    lo, hi = np.interp(tails(level), share, values[order])
    least = NARROWEST * float(stdtrit(spare, tails(level)[1]))
    return min(float(lo), -least), max(float(hi), least)


@dataclass(frozen=True)
class Outlook:
    """What a fit forecasts with."""

    form: LogForm
    q: Array  # "1 k"
    centre: Array
    spread: Spread
    trials: HiddenForecasts
    axes: Array  # "a d"
    tops: Array  # the largest place along each, "a", in logs

    def deviation(self, log_x: Array) -> float:
        """Of a new point at one place, "1 d"."""
        slopes = self.form.jacobian(self.q, log_x - self.centre[:-1])[0]
        return float(self.spread.deviations(slopes)[0])

    def ends(self, log_x: Array, level: float) -> tuple[float, float]:
        """How far below and above the law a new point may fall, in logs."""
        lo, hi = stretch(self.trials, self.spread.spare, level)
        return lo * self.deviation(log_x), hi * self.deviation(log_x)

    def reach(self, log_x: Array) -> float:
        """The farthest along the axes, over the largest place measured."""
        return float(np.exp((self.axes @ log_x[0] - self.tops).max()))


def summary(trials: HiddenForecasts, names: Sequence[str], u: Array) -> Backtest | None:
    """Hits are of intervals that know the outcomes up to their origin and no others."""
    if not len(trials.error):
        return None
    scores = trials.scores
    hits = 0
    for axis, origin in {*zip(trials.axis.tolist(), trials.origin.tolist())}:
        here = (trials.axis == axis) & (trials.origin == origin)
        known = (trials.axis == axis) & (trials.origin < origin) & (trials.place <= origin)
        lo, hi = stretch(trials.some(known), float(trials.spare[here][0]), PREDICTIVE)
        hits += int(np.sum((lo <= scores[here]) & (scores[here] <= hi)))
    return Backtest(
        axis=", ".join(axes(u, names)),
        hits=hits,
        of=len(scores),
        reach=float(np.exp((trials.place - trials.origin).max())),
        error=float(np.median(np.abs(trials.error))),
        bias=float(np.median(trials.error)),
    )
