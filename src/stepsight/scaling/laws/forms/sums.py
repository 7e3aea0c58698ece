"""Sums of powers, one an input, with or without a floor.

power        y = A x^-a
power_floor  y = E + A x^-a
chinchilla   L = E + A / N^alpha + B / D^beta   (Hoffmann et al. 2022, arXiv:2203.15556, eq. 2)
members      e = E + A T^-a + B N^-b            (the same in model calls and members)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.scaling.fitting.form import MAX_SLOPE, Array, LogForm
from stepsight.scaling.laws.forms.projection import VANISHED, combinations, project

GRID = np.geomspace(0.02, 5.0, 12)  # of exponents
NOTHING = -60.0  # log of an amplitude, in units of the middle of y
LOWEST = 600.0  # log of a power beside which only the floor is left
DEPTH = 20.0  # in logs below the lowest point, where an amplitude is nothing


@dataclass(frozen=True)
class SumOfPowers(LogForm):
    """Inner parameters: E in units of the middle of y if there is a floor, then (log A, a) an
    input."""

    floor: bool = True

    def _terms(self, q: Array, u: Array) -> Array:
        """Logs of the powers, "b n d"."""
        powers = q[:, self.floor :]
        return powers[:, None, 0::2] - powers[:, None, 1::2] * u

    def curve(self, q: Array, u: Array) -> Array:
        """Relative to the largest power, as a steep one would overflow."""
        terms = self._terms(q, u)
        top = np.maximum(terms.max(axis=2), -LOWEST)
        total = np.exp(terms - top[..., None]).sum(axis=2)
        if self.floor:
            total += q[:, :1] * np.exp(-top)
        return top + np.log(np.maximum(total, np.finfo(float).tiny))

    def jacobian(self, q: Array, u: Array) -> Array:
        log_y = self.curve(q, u)
        shares = np.exp(self._terms(q, u) - log_y[..., None])
        slopes = np.empty((*log_y.shape, q.shape[1]))
        if self.floor:
            slopes[..., 0] = np.exp(-log_y)
        slopes[..., self.floor :: 2] = shares
        slopes[..., self.floor + 1 :: 2] = -u * shares
        return slopes

    def natural(self, q: Array, centre: Array) -> Array:
        """log A = inner log A + a centre_x + centre_y; E = inner E exp(centre_y)."""
        natural = q.copy()
        exponents = q[:, self.floor + 1 :: 2]
        natural[:, self.floor :: 2] += exponents * centre[:-1] + centre[-1]
        if self.floor:
            natural[:, 0] *= np.exp(centre[-1])
        return natural

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        """The floor lies in [0, max y]: noise may carry points of a plateau below it."""
        least = v.min() - DEPTH - MAX_SLOPE * np.abs(u).max(axis=0)
        most = np.full(u.shape[1], v.max() + 1.0)
        slope = np.full(u.shape[1], MAX_SLOPE)
        lowest = np.zeros_like(slope) if self.floor else -slope
        lower, upper = np.stack([least, lowest], 1).ravel(), np.stack([most, slope], 1).ravel()
        if self.floor:
            lower, upper = np.append(0.0, lower), np.append(np.exp(v.max()), upper)
        return lower, upper

    def canonical(self, q: Array) -> Array:
        """A power of exponent zero is a part of the floor, and nothing by itself."""
        if not self.floor:
            return q
        reported = q.copy()
        constant = q[:, 2::2] <= 0.0
        reported[:, 0] += np.sum(np.where(constant, np.exp(q[:, 1::2]), 0.0), axis=1)
        reported[:, 1::2] = np.where(constant, NOTHING, q[:, 1::2])
        return reported

    def starts(self, u: Array, v: Array) -> Array:
        """The line through the logs; with a floor, projections on a grid of exponents."""
        if not self.floor:
            return _line(u[:, 0], v)
        exponents = combinations(*[GRID] * u.shape[1])
        powers = -exponents[:, None] * u
        columns = np.concatenate([np.zeros((len(powers), len(u), 1)), powers], axis=2)
        logs = project(columns, np.exp(v), np.exp(-v))
        q = np.empty((len(logs), len(self.parameters)))
        q[:, 0] = np.exp(logs[:, 0])
        q[:, 1::2] = np.maximum(logs[:, 1:], VANISHED)
        q[:, 2::2] = exponents
        return q


def _line(u: Array, v: Array) -> Array:
    """Least-squares value at u = 0 and exponent of v = log A - a u; the problem is convex."""
    spread = u - u.mean()
    slope = float(spread @ v / (spread @ spread))
    return np.array([[v.mean() - slope * u.mean(), -slope]])


SUMS = (
    SumOfPowers(
        name="power",
        formula="y = A x^-a",
        inputs=("x",),
        parameters=("A", "a"),
        exponents=("a",),
        logs=("A",),
        floor=False,
    ),
    SumOfPowers(
        name="power_floor",
        formula="y = E + A x^-a",
        inputs=("x",),
        parameters=("E", "A", "a"),
        exponents=("a",),
        logs=("A",),
    ),
    SumOfPowers(
        name="chinchilla",
        formula="L = E + A / N^alpha + B / D^beta",
        inputs=("params", "tokens"),
        parameters=("E", "A", "alpha", "B", "beta"),
        exponents=("alpha", "beta"),
        logs=("A", "B"),
    ),
    SumOfPowers(
        name="members",
        formula="e = E + A T^-a + B N^-b",
        inputs=("steps", "members"),
        parameters=("E", "A", "a", "B", "b"),
        exponents=("a", "b"),
        logs=("A", "B"),
    ),
)
