"""Profile intervals: the values of a parameter at which the best of the others still fits.

A parameter is held at a value, the others are searched for, and the interval ends where the
objective has risen by what chance alone allows. For a Huber loss rho with psi = rho' twice the rise
is, in large samples, (mean psi^2 / mean psi') chi^2_1 (the robust likelihood ratio of Ronchetti
1982; Heritier & Ronchetti 1994, J. Am. Stat. Assoc. 89:897). In small ones mean psi^2 has n - k in
its denominator, F(1, n - k) takes the place of chi^2, and the ratio is widened by the square of
K = 1 + k / n var(psi') / mean(psi')^2, as a fit with few points puts too many of them where the
loss is quadratic (Huber 1981, Robust Statistics, sec. 7.6).

Unlike a standard error the profile follows the valley between parameters that make up for each
other, and it stops at a bound: a floor that may be zero has an interval that ends at zero.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.fitting.search import Optima, Pins, Problem, minimise, psi

CLOSE = 5e-3  # of the root of the rise, relative to the one wanted: of half an interval
MAX_ROUNDS = 30
FAR = 60.0  # logs; an amplitude that is free to go so far is unbounded
SMALLEST_FIRST = 1e-6


def profile(data: Problem, best: Optima, centre: Array, level: float, rounding: float) -> Array:
    """Ends of the intervals of all natural parameters, "k 2", from the optimum `best`.

    `rounding` is the least scatter of log y to reckon with. An end that the data do not determine
    is that of the range searched, for an amplitude zero or infinity.
    """
    form, k = data.form, len(data.form.parameters)
    assert isinstance(form, LogForm), "profiles follow natural parameters"
    allowed = rise(data, best, level, rounding)
    hat = form.natural(best.q, centre)[0]
    side = np.repeat([-1.0, 1.0], k)
    index = np.tile(np.arange(k), 2)
    limit = np.concatenate(_limits(form, data, hat, centre))
    middle, room = hat[index], np.abs(limit - hat[index])
    reach = np.minimum(_first(form, data, best, centre, allowed)[index], room)  # from the middle
    near, low = np.zeros(2 * k), np.zeros(2 * k)  # the farthest known to be inside, and its height
    far, high = np.full(2 * k, math.inf), np.full(2 * k, math.inf)
    q, left = np.repeat(best.q, 2 * k, axis=0), np.arange(2 * k)
    for _ in range(MAX_ROUNDS):
        pins = Pins(index[left], (middle + side * reach)[left], centre)
        searched = minimise(data, q[left], pins)
        height = np.sqrt(np.maximum(searched.objective - best.objective, 0.0) / allowed)
        inside = height < 1.0
        q[left[inside]] = searched.q[inside]  # a search from outside may not find its way back
        near[left[inside]], low[left[inside]] = reach[left[inside]], height[inside]
        far[left[~inside]], high[left[~inside]] = reach[left[~inside]], height[~inside]
        ended = inside & (reach[left] >= room[left])
        left = left[~(ended | (np.abs(height - 1.0) < CLOSE) | _pinched(near, far)[left])]
        if not len(left):
            break
        reach[left] = _next(near, low, far, high, room)[left]
    ends = middle + side * reach
    unbounded = form.moved_as_logs[index] & (reach >= room)
    return np.where(unbounded, side * math.inf, ends).reshape(2, k).T


def rise(data: Problem, best: Optima, level: float, rounding: float) -> float:
    """How far above its minimum the objective may lie inside an interval."""
    residuals = data.form.curve(best.q, data.u)[0] - data.v
    n, k = len(residuals), best.q.shape[1]
    inside = max(float(np.mean(np.abs(residuals) <= data.huber)), 1 / n)
    variance = max(float(np.sum(psi(residuals, data.huber) ** 2)) / (n - k), rounding**2)
    correction = 1 + k / n * (1 - inside) / inside
    quantile = float(stdtrit(n - k, (1 + level) / 2))
    return 0.5 * quantile**2 * correction**2 * variance / inside


def _first(form: LogForm, data: Problem, best: Optima, centre: Array, allowed: float) -> Array:
    """Half intervals if the objective were a parabola, "k": only where the search begins."""
    slopes = form.jacobian(best.q, data.u)[0]
    residuals = form.curve(best.q, data.u)[0] - data.v
    share = np.minimum(1.0, data.huber / np.maximum(np.abs(residuals), np.finfo(float).tiny))
    covariance = np.linalg.pinv(slopes.T @ (share[:, None] * slopes), rcond=1e-12, hermitian=True)
    turned = form.natural_jacobian(best.q, centre)[0]
    spread = np.einsum("ij,jk,ik->i", turned, covariance, turned)
    size = np.abs(form.natural(best.q, centre)[0]) + 1e-3
    return np.maximum(np.sqrt(2 * allowed * np.maximum(spread, 0.0)), SMALLEST_FIRST * size)


def _limits(form: LogForm, data: Problem, hat: Array, centre: Array) -> tuple[Array, Array]:
    """The lowest and highest natural values to be searched, "k" each."""
    lower, upper = form.natural(np.stack([data.lower, data.upper]), centre)
    logs = form.moved_as_logs
    lowest, highest = np.where(logs, hat - FAR, lower), np.where(logs, hat + FAR, upper)
    return np.minimum(lowest, hat), np.maximum(highest, hat)


def _next(near: Array, low: Array, far: Array, high: Array, room: Array) -> Array:
    """Where to look next: the root of the rise is nearly a straight line through the optimum."""
    with np.errstate(divide="ignore", invalid="ignore"):
        outwards = near * np.clip(1.02 / low, 1.1, 4.0)
        between = near + (far - near) * np.clip((1 - low) / (high - low), 0.05, 0.95)
    return np.where(np.isfinite(far), between, np.minimum(outwards, room))


def _pinched(near: Array, far: Array) -> NDArray[np.bool_]:
    """Whether both sides of the end have met."""
    return np.isfinite(far) & (far - near <= 1e-9 * np.where(np.isfinite(far), far, 1.0))
