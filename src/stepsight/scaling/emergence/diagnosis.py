"""What a fitted elbow is worth: its verdict, and warnings that belong beside its numbers.

A hinge through points is always found. Whether there is an elbow is another question, asked of the
points: is a straight line in the loss, which leaves no base, far less likely?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import approx_fprime

from stepsight.scaling.emergence.search import (
    ALPHA,
    QUIET,
    Array,
    ElbowModel,
    Optimum,
    Points,
)
from stepsight.scaling.laws.diagnosis import Verdict as CurveVerdict

Verdict = CurveVerdict | Literal["no elbow"]

ADVISED_LEVELS = 5  # of images
ADVISED_MODELS = 6
DECISIVE = 10.0  # difference of AICc that leaves essentially no support (Burnham & Anderson 2004)
LAW_R2 = 0.9
WORSENS = 0.5  # correlation of performance and loss at one number of images
MAX_CONDITION = 100.0  # of the Jacobian with unit columns
AT_BOUND = 1e-3


@dataclass(frozen=True)
class Range:
    """What was measured."""

    points: int
    models: int
    levels: int  # distinct numbers of images
    loss: tuple[float, float]  # of the strongest model and of the weakest
    images: tuple[float, float]


def judge_elbow(model: ElbowModel, best: Optimum) -> Verdict:
    """The verdict on points that determine a fit, first match in this order.

    * not monotone: at equal images, performance falls as models get better.
    * no elbow: all points lie on one side of it, or a straight line in L is not less likely by an
      AICc of 10.
    * law: R2 of at least 0.9.
    * improves but no law: everything else.
    """
    if _worsens(model.points):
        return "not monotone"
    above, below = _sides(model, best)
    if not (best.slope > 0 and above and below and _gain(model, best) >= DECISIVE):
        return "no elbow"
    return "law" if r_squared(model, best) >= LAW_R2 else "improves but no law"


def design_warnings(measured: Range) -> list[str]:
    """What the design alone calls into question."""
    found = []
    if measured.levels < ADVISED_LEVELS:
        found.append(
            f"{measured.levels} numbers of images: how the elbow moves shows over "
            f"{ADVISED_LEVELS} or more, each four times the last"
        )
    if measured.models < ADVISED_MODELS:
        found.append(f"{measured.models} models: {ADVISED_MODELS} or more show where they leave B")
    return found


def fit_warnings(model: ElbowModel, best: Optimum) -> list[str]:
    """Sides of the elbow without points, bounds, and how well determined the optimum is."""
    alpha, fewest, most = best.theta
    still = most - fewest <= AT_BOUND * model.points.span
    above, below = _sides(model, best)
    found = []
    if _worsens(model.points):
        found.append("performance rises with the loss: an error has to enter as 1 - error")
    if not above:
        found.append("no point above the elbow: all models have left the base")
    if not below or not best.slope:
        found.append("no point below the elbow: no model has left the base")
    for bound in ALPHA:
        if abs(math.log(alpha / bound)) < AT_BOUND and not still:
            found.append(f"alpha is at its bound {bound:g}")
    if (gain := _gain(model, best)) < DECISIVE:
        found.append(
            f"a straight line in the loss does as well (AICc higher by {gain:.3g}, an elbow needs "
            f"{DECISIVE:g})"
        )
    if still:
        found.append("k is at its bound 0: images do not move the elbow, alpha says nothing")
    for end, name in ((fewest, "fewest"), (most, "most")):
        if min(abs(end - bound) for bound in model.bounds) < AT_BOUND * model.points.span:
            found.append(f"the elbow at the {name} images is at its bound {end:.4g}")
    if not found and not (condition := _condition(model, best)) <= MAX_CONDITION:
        found.append(f"ill-determined ({condition:.2g}): parameters trade off against each other")
    return found


def few_shot_warnings(measured: Range, images: float, loss: float, width: float) -> tuple[str, ...]:
    """What speaks against E(D0) = `loss` with an interval of this width; nan says nothing."""
    strongest, weakest = measured.loss
    found = []
    if loss < strongest:
        found.append(
            f"E({images:g}) = {loss:.4g} lies beyond the strongest model ({strongest:.4g}): "
            "extrapolated"
        )
    if loss > weakest:
        found.append(
            f"E({images:g}) = {loss:.4g} lies beyond the weakest model ({weakest:.4g}): "
            "extrapolated"
        )
    if width > weakest - strongest:
        found.append(
            f"E({images:g}) is ill-determined: its interval is wider ({width:.3g}) than the losses "
            f"measured ({weakest - strongest:.3g})"
        )
    return tuple(found)


def r_squared(model: ElbowModel, best: Optimum) -> float:
    """Share of the variance of performance."""
    y = model.points.y
    spread = np.sum((y - y.mean()) ** 2)
    return float(1 - best.rss / spread) if spread else math.nan


def _gain(model: ElbowModel, best: Optimum) -> float:
    """By how much the AICc of the elbow is lower than that of a straight line."""
    return straight_aicc(model.points) - aicc(best.rss, model.free, model.points)


def aicc(rss: float, free: int, points: Points) -> float:
    """Corrected Akaike criterion (Hurvich & Tsai 1989) of `free` parameters and the noise's."""
    n, k = len(points.y), free + 1
    if n - k - 1 <= 0:
        return math.inf
    variance = max(rss / n, (QUIET * points.extent) ** 2)
    return n * math.log(variance) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def straight_aicc(points: Points) -> float:
    """Of y = a - b L + m (log D)^alpha, b and m not negative: the same without a base."""
    logs = np.log(points.images)
    scale = logs.max()
    left = [_straight(points, (logs / scale) ** alpha) for alpha in np.geomspace(*ALPHA, 25)]
    return aicc(min(left), 4, points)


def _straight(points: Points, moved: Array) -> float:
    design = np.stack([np.ones_like(moved), -points.loss, moved], axis=1)
    return float(np.sum((points.y - design @ np.linalg.lstsq(design, points.y)[0]) ** 2))


def _worsens(points: Points) -> bool:
    """Whether, at equal images, performance falls with the loss instead of rising."""
    loss, y = (_within(points.images, column) for column in (points.loss, points.y))
    scale = math.sqrt(float(loss @ loss) * float(y @ y))
    return bool(scale) and float(loss @ y) / scale > WORSENS


def _within(groups: Array, values: Array) -> Array:
    """Values minus the mean of their group."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return values - (np.bincount(place, values) / counts)[place]


def _sides(model: ElbowModel, best: Optimum) -> tuple[int, int]:
    """Points of higher loss than the elbow, and of lower."""
    elbows, loss = model.elbows(best.theta), model.points.loss
    return int(np.sum(loss >= elbows)), int(np.sum(loss < elbows))


def _condition(model: ElbowModel, best: Optimum) -> float:
    """Of the Jacobian by A, B unless it is given, and the elbows, columns of unit length."""

    def curve(q: Array) -> Array:
        slope, base = (q[3], q[4]) if model.base is None else (q[3], model.base)
        return model.curve(q[:3], slope, base)

    at = np.array([*best.theta, best.slope, best.base][: model.free])
    jacobian = np.asarray(approx_fprime(at, curve, 1e-7))
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    return float(np.linalg.cond(jacobian / lengths))
