"""A power law that begins late: y = E + A (x + x0)^-a.

x0 is what a curve has had before its x began, or the x below which nothing happens yet. For x0 = 0
it is the power law with floor; for x0 beyond the data it is nearly an exponential.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from stepsight.scaling.fitting.form import MAX_LOG, MAX_SLOPE, Array, LogForm, with_floor
from stepsight.scaling.laws.forms.projection import VANISHED, combinations, project

BEFORE, BEYOND = 7.0, 1.0  # how far the log of x0 may lie outside the logs of x
GRID = np.geomspace(0.05, 5.0, 10)  # of exponents
PLACES = 8  # of x0


@dataclass(frozen=True)
class Shifted(LogForm):
    """Inner parameters E, log A, a, s, with s = log x0 - centre and A the excess at u = 0, so that
    log y = log(E + exp(h)), h = log A - a (log(e^u + e^s) - log(1 + e^s))."""

    def curve(self, q: Array, u: Array) -> Array:
        return with_floor(q[:, :1], q[:, 1:2] - q[:, 2:3] * _reach(q, u))

    def jacobian(self, q: Array, u: Array) -> Array:
        _, level, slope, place = (q[:, i : i + 1] for i in range(4))
        log_y, reach = self.curve(q, u), _reach(q, u)
        share = np.exp(level - slope * reach - log_y)
        by_place = -slope * (expit(place - u[:, 0]) - expit(place)) * share
        return np.stack([np.exp(-log_y), share, -reach * share, by_place], axis=2)

    def natural(self, q: Array, centre: Array) -> Array:
        x, y = centre
        floor, level, slope, place = q.T
        amplitude = level + y + slope * (np.log1p(np.exp(place)) + x)
        return np.stack([floor * np.exp(y), amplitude, slope, place + x], axis=1)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        least = v.min() - 20.0 - MAX_SLOPE * np.abs(u).max()
        lower = np.array([0.0, least, 0.0, u.min() - BEFORE])
        return lower, np.array([np.exp(v.max()), v.max() + 1.0, MAX_SLOPE, u.max() + BEYOND])

    def starts(self, u: Array, v: Array) -> Array:
        grid = combinations(GRID, np.linspace(u.min() - 1.0, u.max(), PLACES))
        q = np.column_stack([np.zeros((len(grid), 2)), grid])
        powers = -q[:, 2:3] * _reach(q, u)
        logs = project(np.stack([np.zeros_like(powers), powers], 2), np.exp(v), np.exp(-v))
        q[:, 0], q[:, 1] = np.exp(logs[:, 0]), np.maximum(logs[:, 1], VANISHED)
        return q


def _reach(q: Array, u: Array) -> Array:
    """log(x + x0) relative to that at the centre, "b n"."""
    place = np.clip(q[:, 3:4], -MAX_LOG, MAX_LOG)
    return np.logaddexp(u[:, 0], place) - np.logaddexp(0.0, place)


SHIFTED = Shifted(
    name="power_shifted",
    formula="y = E + A (x + x0)^-a",
    inputs=("x",),
    parameters=("E", "A", "a", "x0"),
    exponents=("a",),
    logs=("A", "x0"),
)
