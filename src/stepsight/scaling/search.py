"""Least sums of Huber losses of a curve's log residuals, in bounds, from several starts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from stepsight.scaling.forms import Array, Form

MAX_EVALUATIONS = 1000


class Optimum(NamedTuple):
    """Where a search ended."""

    theta: Array
    inner: Array
    objective: float
    converged: bool


def minimise(law: Form, u: Array, log_y: Array, starts: list[Array], huber: float) -> Optimum:
    """The best optimum over the starts."""
    lower, upper = law.bounds(log_y)

    def residuals(theta: Array) -> Array:
        return law.log_curve(law.inner(theta), u) - log_y

    def jacobian(theta: Array) -> Array:
        slopes = law.jacobian(law.inner(theta), u) @ law.chain(theta)
        return _huber_slope(residuals(theta), huber)[:, None] * slopes

    found = [
        least_squares(
            lambda theta: _huber_root(residuals(theta), huber),
            np.clip(start, lower, upper),
            jac=jacobian,  # type: ignore[arg-type]
            bounds=(lower, upper),
            x_scale="jac",
            max_nfev=MAX_EVALUATIONS,
        )
        for start in starts
    ]
    best = min(found, key=lambda result: result.cost)
    return Optimum(best.x, law.inner(best.x), float(best.cost), best.status > 0)


def _huber_root(residuals: Array, delta: float) -> Array:
    """Signed roots whose halved squares are the Huber losses of `residuals`.

    The objective is that of `least_squares(loss="huber")`. There, Gauss-Newton steps see no
    curvature in the linear part of the loss, and searches stall; here they do, and do not.
    """
    if math.isinf(delta):
        return residuals
    size = np.abs(residuals)
    outside = np.sign(residuals) * np.sqrt(delta * np.maximum(2 * size - delta, 0))
    return np.where(size <= delta, residuals, outside)


def _huber_slope(residuals: Array, delta: float) -> Array:
    """Derivative of `_huber_root`."""
    if math.isinf(delta):
        return np.ones_like(residuals)
    size = np.maximum(np.abs(residuals), delta)
    return np.sqrt(delta / (2 * size - delta))
