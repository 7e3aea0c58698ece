"""What a fit is worth: the verdict on a curve, and warnings that belong beside its numbers.

A straight line through log-log points is always found. Whether it is a law is another question:
published curves in sampling steps fall steeply, then not at all, and a line through them has an
exponent all the same. The tests here look at the points themselves, so that all forms of a curve
are judged by the same measure.

Of a law in several inputs each is looked at alone, with the others at their highest: the law there
plus the residuals of the points (component plus residual, Ezekiel 1924). For one input these are
the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.fitting.quality import (
    AT_BOUND,
    MAX_CONDITION,
    MIN_DECADES,
    SPARE_POINTS,
    Verdict,
    condition,
    stopped_at,
)

MIN_LEVELS = 3  # distinct values of each of several inputs: two do not tell a floor from a slope
MONOTONE_R2 = 0.5  # share of the variance of log y that the best decreasing curve explains
MAX_RISE = 0.2  # of the whole range of log y, over the last third of log x
FLAT = 0.02  # of the range of log y: an input along which it falls by less does nothing
PLATEAU = 0.1  # rate of the last third over the mean rate
EXPONENT_AT_BOUND = 1e-5
NO_EXPONENT = 1e-3  # ten decades change y by 2 %
NOT_CONVERGED = "not converged: the search stopped at its limit of steps"
VANISHED = 1e-4  # share of y that a term has anywhere


@dataclass(frozen=True)
class Trend:
    """How the points fall, whatever the form: in log space, one value per distinct x."""

    points: int  # distinct x
    decades: float
    monotone_r2: float
    rise: float  # over the last third, as a share of the range; negative where the curve falls
    rate: float  # of the last third, relative to the mean rate of the decreasing curve; 0 if flat

    @property
    def monotone(self) -> bool:
        return self.monotone_r2 >= MONOTONE_R2 and self.rise <= MAX_RISE


@dataclass(frozen=True)
class CurveShape:
    """All that the points say about a law in one or several inputs."""

    points: int  # distinct
    trends: dict[str, Trend]  # by input

    def saturated(self, name: str) -> bool:
        return self.trends[name].rate < PLATEAU


def trend(log_x: Array, log_y: Array, extent: float | None = None) -> Trend:
    """Trend of a curve, `log_x` and `log_y` "n"; `extent` is the range of log y, by default its
    own."""
    u, place, counts = np.unique(log_x, return_inverse=True, return_counts=True)
    v = np.bincount(place, log_y) / counts
    from scipy.optimize import isotonic_regression  # takes a second to load

    falling = isotonic_regression(v, weights=counts, increasing=False).x
    mean, span = np.average(v, weights=counts), u[-1] - u[0]
    spread, extent = counts @ (v - mean) ** 2, np.ptp(v) if extent is None else extent
    slope, length = _tail(u, v)
    fall = falling[0] - falling[-1]
    return Trend(
        points=len(u),
        decades=float(span / np.log(10)),
        monotone_r2=float(1 - counts @ (v - falling) ** 2 / spread) if spread else 0.0,
        rise=float(slope * length / extent) if extent else 0.0,
        rate=float(-slope * span / fall) if fall > FLAT * extent else 0.0,
    )


def _tail(u: Array, v: Array) -> tuple[float, float]:
    """Least-squares slope and length of the last third, of at least three points if there are."""
    start = min(np.searchsorted(u, u[-1] - (u[-1] - u[0]) / 3), max(len(u) - 3, 0))
    u, v = u[start:], v[start:]
    spread = u - u.mean()
    return float(spread @ v / (spread @ spread or 1.0)), float(u[-1] - u[0])


def shape(form: LogForm, q: Array, u: Array, scatter: Array, names: tuple[str, ...]) -> CurveShape:
    """The shape of points `u` "n d" around a fitted law `q` "k"; `scatter` "n" are residuals."""
    extent = float(np.ptp(form.curve(q[None], u)[0] + scatter)) if len(names) > 1 else None
    trends = {}
    for i, name in enumerate(names):
        alone = np.tile(u.max(axis=0), (len(u), 1))
        alone[:, i] = u[:, i]
        trends[name] = trend(u[:, i], form.curve(q[None], alone)[0] + scatter, extent)
    return CurveShape(len(np.unique(u, axis=0)), trends)


def bare_shape(u: Array, names: tuple[str, ...]) -> CurveShape:
    """Of points through which no law goes: they are too few."""
    trends = {name: trend(x, np.zeros(len(u))) for name, x in zip(names, u.T)}
    return CurveShape(len(np.unique(u, axis=0)), trends)


def judged_from(form: LogForm) -> int:
    """How many distinct points a verdict and intervals on this form need."""
    return max(len(form.parameters) + SPARE_POINTS, form.fewest)


def enough(form: LogForm, shape: CurveShape) -> bool:
    """Whether there are points enough for a verdict, along every input."""
    return shape.points >= judged_from(form) and not _scarce(shape)


def _scarce(shape: CurveShape) -> list[str]:
    """Of several inputs, those with too few values."""
    if len(shape.trends) == 1:
        return []
    return [name for name, along in shape.trends.items() if along.points < MIN_LEVELS]


def judge(form: LogForm, shape: CurveShape, r2: float) -> Verdict:
    """What the points allow, first match in this order; a law may still be denied (`denials`).

    * too few points: fewer distinct points than parameters + 2 (or than the form demands), or, of
      several inputs, fewer than three values of one.
    * not monotone: the end turns upwards along an input, or no decreasing curve explains half of
      the variance; of several inputs the law itself does not.
    * saturated: the last third falls at under a tenth of the mean rate, along every input.
    """
    if not enough(form, shape):
        return "too few points"
    if not _monotone(shape, r2):
        return "not monotone"
    return "saturated" if all(shape.saturated(name) for name in shape.trends) else "law"


def _monotone(shape: CurveShape, r2: float) -> bool:
    """An input that does nothing has a component of noise alone, which is no reason to object."""
    trends = list(shape.trends.values())
    if len(trends) == 1:
        return trends[0].monotone
    return r2 >= MONOTONE_R2 and all(trend.rise <= MAX_RISE for trend in trends)


def shape_warnings(form: LogForm, shape: CurveShape, r2: float) -> list[str]:
    """What the points alone call into question."""
    needed, several = judged_from(form), len(shape.trends) > 1
    notes = []
    if shape.points < needed:
        what = "points" if several else next(iter(shape.trends))
        notes.append(f"too few points: {shape.points} distinct {what}, {form.name} needs {needed}")
    for name in _scarce(shape):
        values = shape.trends[name].points
        notes.append(f"too few points: {values} values of {name}, {form.name} needs {MIN_LEVELS}")
    for name, along in shape.trends.items():
        if along.decades < MIN_DECADES - 1e-9:
            text = f"{name} spans {along.decades:.1f} decades"
            notes.append(f"{text}; forms differ visibly over two or more")
    if enough(form, shape) and _monotone(shape, r2):
        for name in filter(shape.saturated, shape.trends):
            along = f" in {name}" if several else ""
            rate = max(shape.trends[name].rate, 0)
            notes.append(f"plateau{along}: the last third falls at {rate:.0%} of the mean rate")
    return notes


def ends_reached(
    form: LogForm, q: Array, bounds: tuple[Array, Array], centre: Array
) -> tuple[list[str], list[str]]:
    """Parameters that the bounds of the search stopped, and those that ended where nature does: a
    floor of zero. `q` and the bounds are inner, "k" each."""
    stopped, ended = [], []
    for i, (name, value, lo, hi) in enumerate(zip(form.parameters, q, *bounds)):
        margin = EXPONENT_AT_BOUND if name in form.exponents else AT_BOUND * (hi - lo)
        if (near := stopped_at(value, lo, hi, margin)) is not None:
            at = np.where(np.arange(len(q)) == i, near, q)[None]
            bound = form.reported(form.natural(at, centre))[0, i]
            floor = near == 0 and name not in (*form.exponents, *form.logs)
            (ended if floor else stopped).append(f"{name} is at its bound {bound:.4g}")
    return stopped, ended


def search_warnings(form: LogForm, jacobian: Array) -> list[str]:
    """How well determined the optimum is; `jacobian` "n k" of log y by the inner parameters."""
    share = np.abs(jacobian).max(axis=0)
    gone = form.moved_as_logs & (share < VANISHED)
    notes = [f"{form.parameters[i]} does nothing here" for i in np.flatnonzero(gone)]
    if not (worst := condition(jacobian)) <= MAX_CONDITION:
        notes.append(f"ill-conditioned ({worst:.2g}): parameters trade off against each other")
    return notes
