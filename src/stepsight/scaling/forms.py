"""The shapes a scaling curve may have. Adding one is writing a `Form` and naming it in `FORMS`.

Three sets of parameters describe the same curve:

* reported: A, a, E of y = E + A x^-a. A is the value at x = 1, far outside the data (at 1 FLOP)
  and tied to the exponent almost perfectly, so nothing is fitted in it.
* inner: log A, a, E with x in units of the middle of the data, u = log x - centre.
* theta: what the search moves: log y and its slope at the centre, and E. The points determine
  level and slope well, whatever the floor, so the search goes along axes and not along a curved
  valley in which a larger floor makes up for a larger exponent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepsight.errors import UserError, suggest

Array = NDArray[np.float64]
MAX_SLOPE = 10.0
MAX_LOG = 700.0


@dataclass(frozen=True)
class Form:
    """A family of curves y(x), positive for positive x. Parameters are "k"; u and log_y are "n"."""

    name: str
    formula: str
    parameters: tuple[str, ...]  # as reported
    exponents: tuple[str, ...]  # those that must be positive for a law that improves
    log_curve: Callable[[Array, Array], Array]  # inner, u -> log y
    jacobian: Callable[[Array, Array], Array]  # inner, u -> d log y / d inner, "n k"
    inner: Callable[[Array], Array]  # theta -> inner
    chain: Callable[[Array], Array]  # theta -> d inner / d theta, "k k"
    bounds: Callable[[Array], tuple[Array, Array]]  # log_y -> lower and upper theta
    starts: Callable[[Array, Array], list[Array]]  # u, log_y -> where the search begins, theta


def reported(inner: Array, centre: float) -> Array:
    """(log A, a, ...) with x in units of exp(centre) -> (A, a, ...) with x as given.

    A curve that drops like a step has an A beyond floating point; it is cut off there.
    """
    log_amplitude, exponent, *rest = inner
    amplitude = np.exp(min(log_amplitude + exponent * centre, MAX_LOG))
    return np.array([amplitude, exponent, *rest])


def inner_of(parameters: Array) -> Array:
    """Inverse of `reported` for centre 0."""
    amplitude, *rest = parameters
    return np.array([np.log(amplitude), *rest])


def find_form(name: str) -> Form:
    """The form of that name.

    Raises:
        UserError: there is none.
    """
    if name not in FORMS:
        raise UserError(f"There is no form '{name}'.{suggest(name, FORMS)}")
    return FORMS[name]


def _line(u: Array, log_y: Array) -> tuple[float, float]:
    """Least-squares value at u = 0 and exponent of log y = log A - a u."""
    spread = u - u.mean()
    slope = float(spread @ log_y / (spread @ spread))
    return float(log_y.mean() - slope * u.mean()), -slope


def _level_bounds(log_y: Array) -> tuple[float, float]:
    """A falling curve has a value between those of the points in their middle."""
    return float(log_y.min()), float(log_y.max()) + 1.0


def _power_log_curve(inner: Array, u: Array) -> Array:
    log_amplitude, exponent = inner
    return log_amplitude - exponent * u


def _power_jacobian(inner: Array, u: Array) -> Array:
    return np.stack([np.ones_like(u), -u], axis=1)


def _power_bounds(log_y: Array) -> tuple[Array, Array]:
    lowest, highest = _level_bounds(log_y)
    return np.array([lowest - 1.0, -MAX_SLOPE]), np.array([highest, MAX_SLOPE])


def _power_starts(u: Array, log_y: Array) -> list[Array]:
    """One: the problem is convex."""
    return [np.array(_line(u, log_y))]


def _floor_log_curve(inner: Array, u: Array) -> Array:
    """log(E + excess) without leaving log space, where a steep excess would overflow."""
    log_amplitude, exponent, floor = inner
    return np.logaddexp(np.log(max(floor, np.finfo(float).tiny)), log_amplitude - exponent * u)


def _floor_jacobian(inner: Array, u: Array) -> Array:
    log_amplitude, exponent, _ = inner
    log_y = _floor_log_curve(inner, u)
    share = np.exp(log_amplitude - exponent * u - log_y)
    return np.stack([share, -u * share, np.exp(-log_y)], axis=1)


def _floor_inner(theta: Array) -> Array:
    """With phi = E / y at the centre: log A = log y + log(1 - phi), a = slope / (1 - phi)."""
    level, slope, floor = theta
    excess = 1.0 - floor * np.exp(-level)
    return np.array([level + np.log(excess), slope / excess, floor])


def _floor_chain(theta: Array) -> Array:
    level, slope, floor = theta
    inverse = np.exp(-level)
    excess = 1.0 - floor * inverse
    by_level = [1.0, -slope * floor * inverse / excess, 0.0]
    by_slope = [0.0, 1.0, 0.0]
    by_floor = [-inverse, slope * inverse / excess, excess]
    return np.array([by_level, by_slope, by_floor]).T / excess


def _floor_bounds(log_y: Array) -> tuple[Array, Array]:
    """The floor lies in [0, min y), strictly below the level."""
    lowest, highest = _level_bounds(log_y)
    ceiling = np.exp(lowest) * (1.0 - 1e-9)
    return np.array([lowest, 0.0, 0.0]), np.array([highest, MAX_SLOPE, ceiling])


def _floor_starts(u: Array, log_y: Array) -> list[Array]:
    """For several floors, the straight line through what lies above them."""
    starts = []
    for floor in np.exp(log_y.min()) * np.array([0.01, 0.5, 0.8, 0.97]):
        log_amplitude, exponent = _line(u, np.log(np.exp(log_y) - floor))
        level = np.logaddexp(np.log(floor), log_amplitude)
        starts.append(np.array([level, exponent * np.exp(log_amplitude - level), floor]))
    return starts


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="power",
            formula="y = A x^-a",
            parameters=("A", "a"),
            exponents=("a",),
            log_curve=_power_log_curve,
            jacobian=_power_jacobian,
            inner=lambda theta: theta,
            chain=lambda theta: np.eye(2),
            bounds=_power_bounds,
            starts=_power_starts,
        ),
        Form(
            name="power_floor",
            formula="y = E + A x^-a",
            parameters=("A", "a", "E"),
            exponents=("a",),
            log_curve=_floor_log_curve,
            jacobian=_floor_jacobian,
            inner=_floor_inner,
            chain=_floor_chain,
            bounds=_floor_bounds,
            starts=_floor_starts,
        ),
    )
}
