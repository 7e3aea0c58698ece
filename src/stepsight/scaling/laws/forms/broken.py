"""A power law with one smooth break: y = a + b x^-c0 (1 + (x / d)^(1 / f))^(-c1 f).

The broken neural scaling law of Caballero et al. 2023 (arXiv:2210.14891, eq. 1) with one break: the
exponent is c0 before d and c0 + c1 after it, and f says over how many logs of x it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from stepsight.scaling.fitting.form import MAX_LOG, MAX_SLOPE, Array, LogForm, with_floor
from stepsight.scaling.laws.forms.projection import VANISHED, combinations, project

WIDTHS = (0.02, 3.0)  # of the break, in logs of x: a corner, and no break at all
BEFORE = np.array([0.0, 0.03, 0.1, 0.3, 1.0])  # exponents before the break, where starts are
CHANGE = np.array([-1.0, -0.3, -0.1, 0.1, 0.3, 1.0])
PLACES = 7  # of the break
FEWEST = 10


@dataclass(frozen=True)
class Broken(LogForm):
    """Inner parameters a, log b, c0, c1, log d, f in units of the middle of the data."""

    def curve(self, q: Array, u: Array) -> Array:
        return with_floor(q[:, :1], _excess(q, u))

    def jacobian(self, q: Array, u: Array) -> Array:
        _, _, _, change, place, width = (q[:, i : i + 1] for i in range(6))
        log_y, h = self.curve(q, u), _excess(q, u)
        share, distance = np.exp(h - log_y), (u[:, 0] - place) / width
        bend = np.logaddexp(0.0, distance)
        after = expit(distance)
        by_width = -change * (bend - distance * after)
        slopes = [np.ones_like(h), -u[:, 0] + 0.0 * h, -width * bend, change * after, by_width]
        return np.stack([np.exp(-log_y), *(share * slope for slope in slopes)], axis=2)

    def natural(self, q: Array, centre: Array) -> Array:
        """log b = inner log b + c0 centre_x + centre_y, log d = inner log d + centre_x."""
        x, y = centre
        natural = q.copy()
        natural[:, 0] *= np.exp(y)
        natural[:, 1] += q[:, 2] * x + y
        natural[:, 4] += x
        return natural

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        reach = 20.0 + MAX_SLOPE * np.abs(u).max()
        narrow, wide = WIDTHS
        lower = [0.0, v.min() - reach, 0.0, -MAX_SLOPE, u.min(), narrow]
        upper = [np.exp(v.max()), v.max() + reach, MAX_SLOPE, MAX_SLOPE, u.max(), wide]
        return np.array(lower), np.array(upper)

    def starts(self, u: Array, v: Array) -> Array:
        places = np.linspace(u.min(), u.max(), PLACES + 2)[1:-1]
        grid = combinations(BEFORE, CHANGE, places, np.array([0.1, 0.6]))
        grid = grid[grid[:, 0] + grid[:, 1] >= 0]
        q = np.column_stack([np.zeros((len(grid), 2)), grid])
        powers = _excess(q, u)
        logs = project(np.stack([np.zeros_like(powers), powers], 2), np.exp(v), np.exp(-v))
        q[:, 0], q[:, 1] = np.exp(logs[:, 0]), np.maximum(logs[:, 1], VANISHED)
        return q


def _excess(q: Array, u: Array) -> Array:
    """log of the curve without its floor, "b n"."""
    _, level, before, change, place, width = (q[:, i : i + 1] for i in range(6))
    bend = width * np.logaddexp(0.0, (u[:, 0] - place) / width)
    return np.clip(level - before * u[:, 0] - change * bend, -MAX_LOG, MAX_LOG)


BROKEN = Broken(
    name="bnsl",
    formula="y = a + b x^-c0 (1 + (x / d)^(1 / f))^(-c1 f)",
    inputs=("x",),
    parameters=("a", "b", "c0", "c1", "d", "f"),
    exponents=(),  # c0 may be 0: c0 + c1 is what it extrapolates with
    breaks="d",
    logs=("b", "d"),
    fewest=FEWEST,
)
