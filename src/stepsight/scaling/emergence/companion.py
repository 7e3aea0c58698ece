"""Is a jump the model's or the metric's? The same models under a smooth companion metric.

A thresholded metric (delta1 under a strict threshold, 1-px accuracy) can sit at its base and then
jump although what it thresholds improves at one rate throughout (Schaeffer et al. 2023,
arXiv:2304.15004). So the companion (AbsRel, EPE) of the same models gets a smooth fit, a line or a
power law in L for each number of images, and is asked one thing: does it bend where the
thresholded metric does? With a hinge of slope h at the elbow E(D) added to the smooth fit of mean
slope s, both as improvement a unit of loss, the companion

    jumps as well    where h > s: past the elbow it improves at more than twice the rate before
    is smooth        where h < s

each if the interval of h - s lies on one side of zero; otherwise nothing is decided. The elbow is
taken as fitted, without its own uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from stepsight.errors import UserError
from stepsight.scaling.emergence.diagnosis import within
from stepsight.scaling.emergence.elbow import EmergenceFit, read_points
from stepsight.scaling.emergence.model import Points
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import r_squared
from stepsight.scaling.fitting.resampling import UNKNOWN, Ends
from stepsight.scaling.intervals import LEVEL

Smooth = Literal["linear", "power"]
Jump = Literal["the model's", "the metric's", "no jump", "undecided"]

MIN_MODELS = 3  # at each number of images: a line, and something left over
IMPROVES_R2 = 0.5  # of the smooth fit, within numbers of images; less is no trend to judge


@dataclass(frozen=True)
class Companion:
    """The smooth fit of a smooth metric: y = a + b L or y = a L^b for each number of images."""

    form: Smooth
    coefficients: dict[float, tuple[float, float]]  # images -> a, b
    r2: float  # of what is left after the mean of each number of images
    points: Points

    @property
    def sign(self) -> float:
        """1 where the metric rises as models get better, -1 where it falls."""
        return -1.0 if np.mean([b for _, b in self.coefficients.values()]) > 0 else 1.0


@dataclass(frozen=True)
class Judged:
    """Whose the jump is. Rates are improvements of the companion a unit of loss (of log loss where
    its form is a power law); nan where they were not asked for."""

    verdict: Jump
    before: float  # above the elbow, for the weaker models
    after: float
    interval: Ends  # of (after - before) - before
    sentence: str


def fit_companion(columns: Mapping[str, ArrayLike], x: Sequence[str], y: str) -> Companion:
    """The smooth fit of column `y`; `x` names those of loss and images, as in `fit_columns`.

    Of line and power law the likelier one; only lines pass values that are not positive.

    Raises:
        UserError: as `fit_columns`, or fewer than three models at a number of images.
    """
    points, _ = read_points(columns, x, y, None)
    for images, at in zip(np.unique(points.images), _levels(points.images)):
        models = len(np.unique(points.loss[at]))
        if models < MIN_MODELS:
            raise UserError(
                f"{models} models at {images:g} images: a smooth fit of {y} needs {MIN_MODELS}. "
                "Leave that number of images out."
            )
    forms: list[Smooth] = ["linear"]
    if (points.y > 0).all() and (points.loss > 0).all():
        forms.append("power")
    form = min(forms, key=lambda form: _surprise(form, points))
    u, v = _coordinates(form, points)
    theta, left = _least_squares(_lines(points.images, u), v)
    levels, slopes = theta.reshape(2, -1)
    shown = levels if form == "linear" else np.exp(levels)
    return Companion(
        form=form,
        coefficients=dict(
            zip(np.unique(points.images).tolist(), zip(shown.tolist(), slopes.tolist()))
        ),
        r2=r_squared(within(points.images, v), left),
        points=points,
    )


def judge(threshold: EmergenceFit, companion: Companion, level: float = LEVEL) -> Judged:
    """Whose the jump of `threshold` is; the head of this module states the criterion."""
    if threshold.verdict not in ("law", "improves but no law"):
        why = f"The thresholded metric has no elbow to explain ({threshold.verdict})."
        return Judged("no jump", np.nan, np.nan, UNKNOWN, why)
    trend = companion.r2 >= IMPROVES_R2
    hinge = _hinge(threshold, companion, level) if trend else None
    if hinge is None:
        lacks = "too few points on one side of the elbow" if trend else "no trend with the loss"
        why = f"Undecided: the companion {'has' if trend else 'metric shows'} {lacks}."
        return Judged("undecided", np.nan, np.nan, UNKNOWN, why)
    before, more, (lo, hi) = hinge
    verdict = "the model's" if lo > 0 else "the metric's" if hi < 0 else "undecided"
    rates = f"improves by {before:.3g} per unit of loss before the elbow, {before + more:.3g} after"
    sentence = {
        "the model's": f"The jump is the model's: the companion bends as well; it {rates}.",
        "the metric's": f"The jump is the metric's: only the thresholded one jumps; its companion "
        f"{rates}.",
        "undecided": f"Undecided: the companion {rates}, too uncertainly to tell.",
    }[verdict]
    return Judged(verdict, before, before + more, (lo, hi), sentence)


def _hinge(
    threshold: EmergenceFit, companion: Companion, level: float
) -> tuple[float, float, Ends] | None:
    """Mean slope s, hinge h and the interval of h - s, by least squares with normal noise.

    None where no hinge can be told from the slopes.
    """
    points = companion.points
    u, v = _coordinates(companion.form, points)
    elbows = threshold.elbow(points.images)
    if companion.form == "power":
        elbows = np.log(np.maximum(elbows, np.finfo(float).tiny))
    design = np.column_stack([_lines(points.images, -u), np.maximum(elbows - u, 0.0)])
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        return None
    theta, left = _least_squares(design, companion.sign * v)
    count = (k - 1) // 2
    mean = np.r_[np.zeros(count), np.full(count, 1 / count), 0.0]
    contrast = np.r_[np.zeros(2 * count), 1.0] - mean
    spread = contrast @ np.linalg.inv(design.T @ design) @ contrast * (left @ left) / (n - k)
    middle, reach = contrast @ theta, t.ppf((1 + level) / 2, n - k) * np.sqrt(spread)
    return float(mean @ theta), float(theta[-1]), (float(middle - reach), float(middle + reach))


def _coordinates(form: Smooth, points: Points) -> tuple[Array, Array]:
    """Those in which the form is a line."""
    return (points.loss, points.y) if form == "linear" else (np.log(points.loss), np.log(points.y))


def _surprise(form: Smooth, points: Points) -> float:
    """Negative log likelihood of y up to a constant; a power law's noise is that of log y."""
    u, v = _coordinates(form, points)
    _, left = _least_squares(_lines(points.images, u), v)
    noise = len(v) / 2 * np.log(max(left @ left, np.finfo(float).tiny))
    return float(noise + (np.sum(v) if form == "power" else 0.0))


def _levels(images: Array) -> list[NDArray[np.bool_]]:
    """Which points have each number of images, bool "n" each."""
    return [images == level for level in np.unique(images)]


def _lines(images: Array, u: Array) -> Array:
    """A level, then a slope, for each number of images: "n 2m"."""
    at = np.stack(_levels(images), axis=1).astype(float)
    return np.hstack([at, at * u[:, None]])


def _least_squares(design: Array, v: Array) -> tuple[Array, Array]:
    """Parameters, and what they leave over."""
    theta = np.asarray(np.linalg.lstsq(design, v)[0], dtype=float)
    return theta, v - design @ theta
