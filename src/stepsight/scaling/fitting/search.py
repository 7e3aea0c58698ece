"""Least sums of Huber losses of residuals, in bounds: many searches of one form at once.

Starts, resamples and the points of a profile are all searches for the same kind of optimum, so they
run as one batch of damped Newton steps (Levenberg 1944, Marquardt 1963) with an active set for the
bounds. The curvature is that of the Huber loss where it is quadratic; damping adds the weights of
iterated least squares, whose steps descend from anywhere but approach the optimum slowly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array, Form, LogForm

MAX_STEPS = 200
GAIN = 1e-13  # promised by a step, relative to the objective, below which the search is over
STALLED = 1e-7  # the same, for a search that finds no lower point on the line to its optimum
EXACT = 1e-26  # an objective a point: nothing but rounding
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9
SHRINK, GROW = 0.15, 6.0
CANDIDATES = 16  # starts that are searched from
ROWWISE = ("v", "weights", "lower", "upper")  # of a problem: may differ between its searches


class Problem(NamedTuple):
    """Points to fit: `u` "n d"; `v`, and `weights`, how often a point counts, "n" or one row per
    search, "b n"; bounds "k" or "b k"."""

    form: Form
    u: Array
    v: Array
    weights: Array
    huber: float
    lower: Array
    upper: Array


class Pins(NamedTuple):
    """One natural parameter a search is held at a value: `column` and `value` "b"."""

    column: NDArray[np.intp]
    value: Array
    centre: Array


class Optima(NamedTuple):
    """Where searches ended."""

    q: Array  # "b k"
    objective: Array  # "b"
    converged: NDArray[np.bool_]


def problem(form: Form, u: Array, v: Array, huber: float = math.inf) -> Problem:
    """Every point counts once; without `huber` the objective is half the sum of squares."""
    return Problem(form, u, v, np.ones(len(v)), huber, *form.bounds(u, v))


def best_start(data: Problem, candidates: int = CANDIDATES, steps: int | None = None) -> Optima:
    """The best optimum over the starts of the form, "1 k", searched from the most promising."""
    starts = np.clip(data.form.starts(data.u, data.v), data.lower, data.upper)
    order = np.argsort(_objective(data, starts, np.arange(len(starts))))
    return best_of(data, starts[None, order[:candidates]], steps)


def best_of(data: Problem, starts: Array, steps: int | None = None) -> Optima:
    """Of each search the best optimum from its own starts, "b s k" -> "b k"."""
    b, s, k = starts.shape
    rows = np.repeat(np.arange(b), s)
    each = (_row(part, rows) for part in (data.v, data.weights, data.lower, data.upper))
    ends = minimise(data._replace(**dict(zip(ROWWISE, each))), starts.reshape(-1, k), steps=steps)
    best = ends.objective.reshape(b, s).argmin(axis=1) + s * np.arange(b)
    return Optima(ends.q[best], ends.objective[best], ends.converged[best])


def minimise(data: Problem, q: Array, pins: Pins | None = None, steps: int | None = None) -> Optima:
    """Searches from `q` "b k"; each ends where no step promises a gain, or after so many steps."""
    q = _held(data.form, np.clip(q, data.lower, data.upper), pins)
    left = np.arange(len(q))
    value, damping = _objective(data, q, left), np.full(len(q), DAMPING)
    converged = np.zeros(len(q), dtype=bool)
    for _ in range(steps or MAX_STEPS):
        if not len(left):
            break
        held = _some(pins, left)
        step, promise = _step(data, q[left], left, damping[left], held)
        ends = _row(data.lower, left), _row(data.upper, left)
        tried = _held(data.form, np.clip(q[left] + step, *ends), held)
        reached = _objective(data, tried, left)
        down = reached < value[left]
        over = promise <= GAIN * value[left] + EXACT * len(data.u)
        stuck = ~down & (damping[left] >= MOST_DAMPING)
        near = ~down & (promise <= STALLED * value[left]) & (damping[left] >= 1.0)
        q[left[down]], value[left[down]] = tried[down], reached[down]
        damping[left] = np.clip(
            damping[left] * np.where(down, SHRINK, GROW), LEAST_DAMPING, MOST_DAMPING
        )
        converged[left[over | near]] = True
        left = left[~(over | near | stuck)]
    return Optima(q, value, converged)


def psi(residuals: Array, delta: float) -> Array:
    """Derivative of the Huber loss."""
    return np.clip(residuals, -delta, delta)


def _objective(data: Problem, q: Array, rows: NDArray[np.intp]) -> Array:
    """Sums of Huber losses, "b"."""
    size = np.abs(data.form.curve(q, data.u) - _row(data.v, rows))
    inner = np.minimum(size, data.huber)
    return np.sum(_row(data.weights, rows) * inner * (size - 0.5 * inner), axis=1)


def _step(
    data: Problem, q: Array, rows: NDArray[np.intp], damping: Array, pins: Pins | None
) -> tuple[Array, Array]:
    """The damped Newton step within the bounds, "b k", and the gain that it promises, "b"."""
    residuals = data.form.curve(q, data.u) - _row(data.v, rows)
    weights = np.broadcast_to(_row(data.weights, rows), residuals.shape)
    slopes = data.form.jacobian(q, data.u)
    if pins is not None:
        slopes = _along(data.form, slopes, q, pins)
    size = np.abs(residuals)
    inside = size <= data.huber
    turned = np.swapaxes(slopes, 1, 2)
    gradient = (turned @ (weights * psi(residuals, data.huber))[..., None])[..., 0]
    newton = turned @ ((weights * inside)[..., None] * slopes)
    share = np.where(inside, 1.0, data.huber / np.maximum(size, np.finfo(float).tiny))
    safe = turned @ ((weights * share)[..., None] * slopes)
    scale = np.sqrt(np.einsum("bkk->bk", safe))
    scale = np.where(scale > 0, scale, 1.0)
    unit = scale[:, :, None] * scale[:, None, :]
    eye = np.eye(q.shape[1])
    strength = damping[:, None, None]
    curvature = (newton + strength * safe) / unit + (strength + 1e-13) * eye
    frozen = np.zeros(q.shape, dtype=bool)
    if pins is not None:
        frozen[np.arange(len(q)), pins.column] = True
    lower, upper = ((_row(ends, rows) - q) * scale for ends in (data.lower, data.upper))
    step = _box_step(curvature, gradient / scale, lower, upper, frozen)
    bend = np.einsum("bi,bij,bj->b", step, curvature, step)
    promise = -np.sum(step * gradient / scale, axis=1) - 0.5 * bend
    return step / scale, promise


def _box_step(
    curvature: Array, gradient: Array, lower: Array, upper: Array, frozen: NDArray[np.bool_]
) -> Array:
    """Minimum of the quadratic model; steps that leave the box end on it, and the others follow."""
    free = ~(frozen | ((lower >= 0) & (gradient > 0)) | ((upper <= 0) & (gradient < 0)))
    step = held = np.zeros_like(gradient)
    eye = np.eye(gradient.shape[1])
    for _ in range(gradient.shape[1]):
        both = free[:, :, None] & free[:, None, :]
        pull = -gradient - np.einsum("bij,bj->bi", curvature, held)
        right = np.where(free, pull, held)
        step = np.linalg.solve(np.where(both, curvature, eye), right[..., None])[..., 0]
        outside = free & ((step < lower) | (step > upper))
        if not outside.any():
            break
        free &= ~outside
        held = np.where(outside, np.clip(step, lower, upper), held)
    return np.where(frozen, 0.0, np.clip(step, lower, upper))


def _held(form: Form, q: Array, pins: Pins | None) -> Array:
    """The same with the pinned inner parameter solved for."""
    if pins is None:
        return q
    assert isinstance(form, LogForm), "only a law has natural parameters"
    rows = np.arange(len(q))
    slope = form.natural_jacobian(q, pins.centre)[rows, pins.column, pins.column]
    off = pins.value - form.natural(q, pins.centre)[rows, pins.column]
    moved = q.copy()
    moved[rows, pins.column] += off / slope
    return moved


def _along(form: Form, slopes: Array, q: Array, pins: Pins) -> Array:
    """Derivatives by the other parameters, with the pinned one following them."""
    assert isinstance(form, LogForm)
    rows = np.arange(len(q))
    by_inner = form.natural_jacobian(q, pins.centre)[rows, pins.column]
    follow = -by_inner / by_inner[rows, pins.column][:, None]
    follow[rows, pins.column] = -1.0  # its own column vanishes
    return slopes + slopes[rows, :, pins.column][:, :, None] * follow[:, None, :]


def _row(values: Array, rows: NDArray[np.intp]) -> Array:
    """Of those that are the same for every search, or of one row a search."""
    return values if values.ndim == 1 else values[rows]


def _some(pins: Pins | None, rows: NDArray[np.intp]) -> Pins | None:
    return pins and Pins(pins.column[rows], pins.value[rows], pins.centre)
