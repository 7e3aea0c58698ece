"""What a fit is worth: the verdict on a curve, and warnings that belong beside its numbers.

A straight line through log-log points is always found. Whether it is a law is another question:
published curves in sampling steps fall steeply, then not at all, and a line through them has an
exponent all the same. The tests here look at the points themselves, so that both forms of a curve
are judged by the same measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from stepsight.scaling.forms import Array, Form

Verdict = Literal["law", "saturated", "too few points", "not monotone", "improves but no law"]

SPARE_POINTS = 2  # distinct x beyond the number of parameters
MIN_DECADES = 2.0
MONOTONE_R2 = 0.5  # share of the variance of log y that the best decreasing curve explains
MAX_RISE = 0.2  # of the whole range of log y, over the last third of log x
PLATEAU = 0.1  # rate of the last third over the mean rate
LAW_R2 = 0.9
MAX_CONDITION = 100.0  # of the Jacobian with unit columns: correlations of .9998
EXPONENT_AT_BOUND = 1e-5
FLOOR_AT_BOUND = 1e-3  # of the lowest y


@dataclass(frozen=True)
class Trend:
    """How the points fall, whatever the form: in log space, one value per distinct x."""

    points: int  # distinct x
    decades: float
    monotone_r2: float
    rise: float  # over the last third, as a share of the range; negative where the curve falls
    rate: float  # of the last third, relative to the mean rate of the decreasing curve

    @property
    def monotone(self) -> bool:
        return self.monotone_r2 >= MONOTONE_R2 and self.rise <= MAX_RISE


def trend(log_x: Array, log_y: Array) -> Trend:
    """Trend of a curve, `log_x` and `log_y` "n"."""
    u, place, counts = np.unique(log_x, return_inverse=True, return_counts=True)
    v = np.bincount(place, log_y) / counts
    falling = isotonic_regression(v, weights=counts, increasing=False).x
    mean, span = np.average(v, weights=counts), u[-1] - u[0]
    spread, extent = counts @ (v - mean) ** 2, np.ptp(v)
    slope, length = _tail(u, v)
    fall = falling[0] - falling[-1]
    return Trend(
        points=len(u),
        decades=float(span / np.log(10)),
        monotone_r2=float(1 - counts @ (v - falling) ** 2 / spread) if spread else 0.0,
        rise=float(slope * length / extent) if extent else 0.0,
        rate=float(-slope * span / fall) if fall else 0.0,
    )


def _tail(u: Array, v: Array) -> tuple[float, float]:
    """Least-squares slope and length of the last third, of at least three points if there are."""
    start = min(np.searchsorted(u, u[-1] - (u[-1] - u[0]) / 3), max(len(u) - 3, 0))
    u, v = u[start:], v[start:]
    spread = u - u.mean()
    return float(spread @ v / (spread @ spread or 1.0)), float(u[-1] - u[0])


def judged_from(form: Form) -> int:
    """How many distinct x a verdict and intervals on this form need."""
    return len(form.parameters) + SPARE_POINTS


def judge(
    form: Form, shape: Trend, r2: float, intervals: dict[str, tuple[float, float]]
) -> Verdict:
    """The verdict, first match in this order.

    * too few points: fewer distinct x than parameters + 2.
    * not monotone: no decreasing curve explains half of the variance, or the end turns upwards.
    * saturated: the last third falls at under a tenth of the mean rate.
    * law: R2 in log space of at least 0.9, and every exponent's interval lies above zero.
    * improves but no law: everything else.
    """
    if shape.points < judged_from(form):
        return "too few points"
    if not shape.monotone:
        return "not monotone"
    if shape.rate < PLATEAU:
        return "saturated"
    positive = all(not intervals[name][0] <= 0 for name in form.exponents)
    return "law" if r2 >= LAW_R2 and positive else "improves but no law"


def shape_warnings(form: Form, shape: Trend) -> list[str]:
    """What the points alone call into question."""
    needed = judged_from(form)
    found = []
    if shape.points < needed:
        found.append(f"too few points: {shape.points} distinct x, {form.name} needs {needed}")
    if shape.decades < MIN_DECADES:
        found.append(f"x spans {shape.decades:.1f} decades; forms differ visibly over two or more")
    if shape.points >= needed and shape.monotone and shape.rate < PLATEAU:
        found.append(f"plateau: the last third falls at {max(shape.rate, 0):.0%} of the mean rate")
    return found


def bound_warnings(form: Form, theta: Array, bounds: tuple[Array, Array]) -> list[str]:
    """Exponents and floors that the bounds stopped, "k" each; the level has none that matter."""
    found = []
    for name, value, lo, hi in list(zip(form.parameters, theta, *bounds))[1:]:
        near, distance = (lo, value - lo) if value - lo < hi - value else (hi, hi - value)
        margin = EXPONENT_AT_BOUND if name in form.exponents else FLOOR_AT_BOUND * (hi - lo)
        if distance <= margin:
            found.append(f"{name} is at its bound {near:.4g}")
    return found


def search_warnings(jacobian: Array, converged: bool) -> list[str]:
    """How well determined the optimum is; `jacobian` "n k" of log y by the inner parameters."""
    found = [] if converged else ["not converged: the search stopped at its limit of evaluations"]
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    condition = np.linalg.cond(jacobian / lengths)
    if not condition <= MAX_CONDITION:
        found.append(f"ill-conditioned ({condition:.2g}): parameters trade off against each other")
    return found
