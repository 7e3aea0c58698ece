"""Least squares for y = K (x - E0)^kappa + E1 where floors are known or not (arXiv:2411.12925).

With both floors known, log K and kappa are ordinary least squares of log(y - E1) on log(x - E0). A
floor that is not known is searched for within 0 <= E < the smallest loss by least squares of y,
from the best point of a grid over floors (each with its straight line in logs) and from the
authors' start: K = 1, kappa = 1, no floor.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
Known = tuple[float | None, ...]  # floors of x and y; None is searched for

GRID = 100  # floors a loss, as in the authors' code
COARSE = 20  # the same for resampled data
MAX_EVALUATIONS = 50  # of a search in resampled data: floors trade off along a flat valley
MAX_KAPPA = 100.0  # beyond it a relation is a step
MAX_LOG = 700.0
TINY = float(np.finfo(float).tiny)
MARGIN = 1e-9  # by which a floor stays below the smallest loss


def relation_at(theta: Array, x: Array) -> Array:
    """y at x; `theta` is K, kappa, E0, E1. At or below E0 it is E1."""
    K, kappa, e0, e1 = theta
    return K * np.maximum(x - e0, 0.0) ** kappa + e1


def solve(x: Array, y: Array, known: Known, points: int, start: Array | None = None) -> Array:
    """K, kappa, E0, E1. With both floors known a straight line in logs, else a bounded search.

    points: of the grid over each floor. start: parameters near by, as for resampled data, which a
    shorter search then begins with where the grid holds nothing better.
    """
    e0, e1 = (
        np.linspace(0, values.min(), points, endpoint=False) if floor is None else np.array([floor])
        for floor, values in zip(known, (x, y))
    )

    def error(theta: Array) -> float:
        return float(np.sum((y - relation_at(theta, x)) ** 2))

    guess = _best_on_grid(x, y, e0, e1)
    if None not in known:
        return guess
    if start is None:
        found = [_search(x, y, known, one) for one in (guess, np.array([1, 1, e0[0], e1[0]]))]
    else:
        found = [_search(x, y, known, min(guess, start, key=error), MAX_EVALUATIONS)]
    return min(found, key=error)


def _amplitude(log_k: float) -> float:
    """K, cut off where floating point ends: a relation like a step has K at x = 1 far outside."""
    return math.exp(min(max(log_k, -MAX_LOG), MAX_LOG))


def _best_on_grid(x: Array, y: Array, e0: Array, e1: Array) -> Array:
    """Straight lines in logs for all pairs of floors, and of those the least error of y.

    x and y "n", e0 "p", e1 "q" -> K, kappa, E0, E1.
    """
    v = np.log(y - e1[:, None])
    found = [_best_line(np.log(x - floor), v, y, e1) for floor in e0]
    place = int(np.argmin([error for error, *_ in found]))
    _, level, slope, own = found[place]
    return np.array([_amplitude(level), slope, e0[place], own])


def _best_line(u: Array, v: Array, y: Array, e1: Array) -> tuple[float, float, float, float]:
    """For one floor of x: least error of y, level and slope of the line, and its floor of y.

    u "n", v "q n", y "n", e1 "q".
    """
    du = u - u.mean()
    slope = np.clip(v @ du / max(float(du @ du), TINY), -MAX_KAPPA, MAX_KAPPA)
    level = v.mean(1) - slope * u.mean()
    curve = np.exp(level[:, None] + slope[:, None] * u) + e1[:, None]
    errors = np.sum((curve - y) ** 2, axis=1)
    j = int(np.argmin(errors))
    return float(errors[j]), float(level[j]), float(slope[j]), float(e1[j])


def _search(
    x: Array, y: Array, known: Known, start: Array, evaluations: int | None = None
) -> Array:
    """Least squares of y within bounds, on losses of order one so that tolerances mean the same."""
    a, b = float(x.mean()), float(y.mean())
    u, v = x / a, y / b
    lower = np.zeros(4)
    upper = np.array([np.inf, MAX_KAPPA, u.min() * (1 - MARGIN), v.min()])
    K, kappa, e0, e1 = start
    unit = math.log(b) - kappa * math.log(a)  # of log K
    scaled = np.clip(
        [_amplitude(math.log(max(K, TINY)) - unit), kappa, e0 / a, e1 / b], lower, upper
    )
    free = np.array([True, True, known[0] is None, known[1] is None])

    def full(part: Array) -> Array:
        theta = scaled.copy()
        theta[free] = part
        return theta

    def slopes(part: Array) -> Array:
        amplitude, power, floor, _ = full(part)
        excess = u - floor
        rise = excess**power
        by_floor = -amplitude * power * rise / excess
        columns = [rise, amplitude * rise * np.log(excess), by_floor, np.ones_like(u)]
        return np.stack(columns, axis=1)[:, free]

    found = least_squares(
        lambda part: relation_at(full(part), u) - v,
        scaled[free],
        jac=slopes,  # type: ignore[arg-type]
        bounds=(lower[free], upper[free]),
        x_scale="jac",
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-12,
        max_nfev=evaluations,
    )
    K, kappa, e0, e1 = full(found.x)
    e0, e1 = (fitted if floor is None else floor for fitted, floor in zip((a * e0, b * e1), known))
    log_k = math.log(K) + math.log(b) - kappa * math.log(a) if K > 0 else -math.inf
    return np.array([_amplitude(log_k), kappa, e0, e1])
