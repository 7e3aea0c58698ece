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
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from stepsight.scaling.laws.forms import Array, Form
from stepsight.scaling.laws.forms.form import MAX_SLOPE

Verdict = Literal["law", "saturated", "too few points", "not monotone", "improves but no law"]

SPARE_POINTS = 2  # distinct x beyond the number of parameters
MIN_LEVELS = 3  # distinct values of each of several inputs: two do not tell a floor from a slope
MIN_DECADES = 2.0
MONOTONE_R2 = 0.5  # share of the variance of log y that the best decreasing curve explains
MAX_RISE = 0.2  # of the whole range of log y, over the last third of log x
FLAT = 0.02  # of the range of log y: an input along which it falls by less does nothing
PLATEAU = 0.1  # rate of the last third over the mean rate
LAW_R2 = 0.9
MAX_CONDITION = 100.0  # of the Jacobian with unit columns: correlations of .9998
EXPONENT_AT_BOUND = 1e-5
NO_EXPONENT = 1e-3  # ten decades change y by 2 %
AT_BOUND = 1e-3  # of the range of any other parameter
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
class Shape:
    """All that the points say about a law in one or several inputs."""

    points: int  # distinct
    trends: dict[str, Trend]  # by input
    fitted: bool = True  # whether the points determined a law at all

    def saturated(self, name: str) -> bool:
        return self.trends[name].rate < PLATEAU


def trend(log_x: Array, log_y: Array, extent: float | None = None) -> Trend:
    """Trend of a curve, `log_x` and `log_y` "n"; `extent` is the range of log y, by default its
    own."""
    u, place, counts = np.unique(log_x, return_inverse=True, return_counts=True)
    v = np.bincount(place, log_y) / counts
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


def shape(form: Form, q: Array, u: Array, scatter: Array, names: tuple[str, ...]) -> Shape:
    """The shape of points `u` "n d" around a fitted law `q` "k"; `scatter` "n" are residuals."""
    extent = float(np.ptp(form.log_curve(q[None], u)[0] + scatter))
    trends = {}
    for i, name in enumerate(names):
        alone = np.tile(u.max(axis=0), (len(u), 1))
        alone[:, i] = u[:, i]
        part = form.log_curve(q[None], alone)[0] + scatter
        trends[name] = trend(u[:, i], part, extent if len(names) > 1 else None)
    return Shape(len(np.unique(u, axis=0)), trends)


def bare_shape(u: Array, names: tuple[str, ...]) -> Shape:
    """Of points through which no law goes: they are too few."""
    trends = {name: trend(u[:, i], np.zeros(len(u))) for i, name in enumerate(names)}
    return Shape(len(np.unique(u, axis=0)), trends, fitted=False)


def judged_from(form: Form) -> int:
    """How many distinct points a verdict and intervals on this form need."""
    return max(len(form.parameters) + SPARE_POINTS, form.fewest)


def enough(form: Form, shape: Shape) -> bool:
    """Whether there are points enough for a verdict, along every input."""
    return shape.points >= judged_from(form) and not _scarce(shape)


def _scarce(shape: Shape) -> list[str]:
    """Of several inputs, those with too few values."""
    if len(shape.trends) == 1:
        return []
    return [name for name, one in shape.trends.items() if one.points < MIN_LEVELS]


def judge(
    form: Form,
    shape: Shape,
    r2: float,
    params: dict[str, float],
    intervals: dict[str, tuple[float, float]],
) -> Verdict:
    """The verdict, first match in this order.

    * too few points: fewer distinct points than parameters + 2 (or than the form demands), or, of
      several inputs, fewer than three values of one.
    * not monotone: the end turns upwards along an input, or no decreasing curve explains half of
      the variance; of several inputs the law itself does not.
    * saturated: the last third falls at under a tenth of the mean rate, along every input.
    * law: R2 in log space of at least 0.9, every exponent's interval lies above 0.001, and no
      exponent is at the end of the range searched.
    * improves but no law: everything else.
    """
    if not enough(form, shape):
        return "too few points"
    if not _monotone(shape, r2):
        return "not monotone"
    if all(shape.saturated(name) for name in shape.trends):
        return "saturated"
    positive = all(not intervals[name][0] <= NO_EXPONENT for name in form.exponents)
    finite = all(params[name] < MAX_SLOPE - EXPONENT_AT_BOUND for name in form.exponents)
    return "law" if r2 >= LAW_R2 and positive and finite else "improves but no law"


def _monotone(shape: Shape, r2: float) -> bool:
    """An input that does nothing has a component of noise alone, which is no reason to object."""
    trends = list(shape.trends.values())
    if len(trends) == 1:
        return trends[0].monotone
    return r2 >= MONOTONE_R2 and all(one.rise <= MAX_RISE for one in trends)


def shape_warnings(form: Form, shape: Shape, r2: float) -> list[str]:
    """What the points alone call into question."""
    needed, several = judged_from(form), len(shape.trends) > 1
    found = []
    if shape.points < needed:
        what = "points" if several else next(iter(shape.trends))
        found.append(f"too few points: {shape.points} distinct {what}, {form.name} needs {needed}")
    for name in _scarce(shape):
        values = shape.trends[name].points
        found.append(f"too few points: {values} values of {name}, {form.name} needs {MIN_LEVELS}")
    for name, one in shape.trends.items():
        if one.decades < MIN_DECADES:
            text = f"{name} spans {one.decades:.1f} decades"
            found.append(f"{text}; forms differ visibly over two or more")
    if enough(form, shape) and _monotone(shape, r2):
        for name in filter(shape.saturated, shape.trends):
            along = f" in {name}" if several else ""
            rate = max(shape.trends[name].rate, 0)
            found.append(f"plateau{along}: the last third falls at {rate:.0%} of the mean rate")
    return found


def bound_warnings(form: Form, q: Array, bounds: tuple[Array, Array], centre: Array) -> list[str]:
    """Parameters that the bounds of the search stopped; `q` and the bounds are inner, "k" each."""
    found = []
    for i, (name, value, lo, hi) in enumerate(zip(form.parameters, q, *bounds)):
        near, distance = (lo, value - lo) if value - lo < hi - value else (hi, hi - value)
        margin = EXPONENT_AT_BOUND if name in form.exponents else AT_BOUND * (hi - lo)
        if distance <= margin:
            at = np.where(np.arange(len(q)) == i, near, q)[None]
            bound = form.reported(form.natural(at, centre))[0, i]
            found.append(f"{name} is at its bound {bound:.4g}")
    return found


def search_warnings(form: Form, jacobian: Array, converged: bool) -> list[str]:
    """How well determined the optimum is; `jacobian` "n k" of log y by the inner parameters."""
    found = [] if converged else ["not converged: the search stopped at its limit of steps"]
    share = np.abs(jacobian).max(axis=0)
    gone = form.moved_as_logs & (share < VANISHED)
    found += [f"{form.parameters[i]} does nothing here" for i in np.flatnonzero(gone)]
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    condition = np.linalg.cond(jacobian / lengths)
    if not condition <= MAX_CONDITION:
        found.append(f"ill-conditioned ({condition:.2g}): parameters trade off against each other")
    return found
