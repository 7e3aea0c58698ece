"""The form y = K (x - E0)^kappa + E1 whose floors are known or not (arXiv:2411.12925).

With both floors known, log K and kappa are ordinary least squares of log(y - E1) on log(x - E0). A
floor that is not known is searched for within 0 <= E < the smallest loss by least squares of y,
from the best points of a grid over floors (each with its straight line in logs) and from the
authors' start: K = 1, kappa = 1, no floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.scaling.fitting.form import MAX_LOG, Array, Form

FORMULA = "y = K (x - E0)^kappa + E1"
PARAMETERS = ("K", "kappa", "E0", "E1")
GRID = 100  # floors per loss, as in the authors' code
MAX_KAPPA = 100.0  # beyond it a relation is a step
TINY = float(np.finfo(float).tiny)
MARGIN = 1e-9  # by which a floor stays below the smallest loss


@dataclass(frozen=True)
class Floored(Form):
    """Inner parameters: the rise of y above E1 at the largest x, kappa, E0 and E1, of x and y in
    `units` so that losses are of order one. Floors in `known`, in those units, are held."""

    name: str = "relation"
    formula: str = FORMULA
    parameters: tuple[str, ...] = PARAMETERS
    units: tuple[float, float] = (1.0, 1.0)
    known: tuple[float | None, float | None] = (None, None)

    def curve(self, q: Array, u: Array) -> Array:
        return q[:, :1] * np.exp(q[:, 1:2] * _reach(q[:, 2:3], u[:, 0])) + q[:, 3:4]

    def jacobian(self, q: Array, u: Array) -> Array:
        rise, kappa, floor, _ = (q[:, i : i + 1] for i in range(4))
        reach = _reach(floor, u[:, 0])
        power = np.exp(kappa * reach)
        by_floor = 1 / (u.max() - floor) - 1 / _above(floor, u[:, 0])
        slopes = [power, rise * power * reach, rise * power * kappa * by_floor]
        return np.stack([*slopes, np.ones_like(power)], axis=2)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        lowest = [0.0 if floor is None else floor for floor in self.known]
        ends = u.min() * (1 - MARGIN), v.min()
        highest = [end if floor is None else floor for end, floor in zip(ends, self.known)]
        return np.array([0, 0, *lowest]), np.array([np.inf, MAX_KAPPA, *highest])

    def starts(self, u: Array, v: Array) -> Array:
        """Straight lines in logs for all pairs of floors; last, the authors' start."""
        e0, e1 = (
            np.linspace(0, least, GRID, endpoint=False) if floor is None else np.array([floor])
            for least, floor in zip((u.min(), v.min()), self.known)
        )
        lines = straight(e0[:, None], e1, u, v, np.ones(len(v))).reshape(-1, 4)
        rise = (u.max() - e0[0]) * self.units[0] / self.units[1]
        return np.vstack([lines, [rise, 1.0, e0[0], e1[0]]])

    def natural(self, q: Array, u: Array) -> Array:
        """K, kappa, E0, E1 of each search, "b 4". A relation like a step has K at x = 1 far
        outside of the pairs; it is cut off where floating point ends."""
        x, y = self.units
        rise, kappa, e0, e1 = q.T
        log_k = np.log(np.maximum(rise, TINY)) + np.log(y) - kappa * np.log(x * (u.max() - e0))
        amplitude = np.exp(np.clip(log_k, -MAX_LOG, MAX_LOG))
        return np.stack([amplitude, kappa, x * e0, y * e1], axis=1)


def straight(e0: Array, e1: Array, u: Array, v: Array, weights: Array) -> Array:
    """Inner parameters "... 4" of straight lines in logs above given floors, "..." each, with
    points counted as in `weights` "n" or "... n"."""
    x, y = _reach(e0[..., None], u[:, 0]), np.log(v - e1[..., None])
    total = weights.sum(axis=-1)
    centre, level = _summed(weights, x) / total, _summed(weights, y) / total
    off = x - centre[..., None]
    slope = _summed(weights * off, y) / np.maximum(_summed(weights * off, off), TINY)
    kappa = np.clip(slope, -MAX_KAPPA, MAX_KAPPA)
    rise = np.exp(np.clip(level - kappa * centre, -MAX_LOG, MAX_LOG))
    return np.stack(np.broadcast_arrays(rise, kappa, e0, e1), axis=-1)


def relation_at(theta: Array, x: Array) -> Array:
    """y at x; `theta` is K, kappa, E0, E1, "4" or "m 4". At or below E0 it is E1."""
    K, kappa, e0, e1 = theta.T
    power = np.exp(np.clip(kappa * np.log(_above(e0, x)), -MAX_LOG, MAX_LOG))
    return np.where(x > e0, K * power, 0.0) + e1


def _summed(weights: Array, values: Array) -> Array:
    """Over points, of shapes that broadcast, without the product in memory."""
    return np.einsum("...n,...n->...", weights, values)


def _above(floor: Array, x: Array) -> Array:
    return np.maximum(x - floor, TINY)


def _reach(floor: Array, x: Array) -> Array:
    """log(x - E0), relative to that of the largest x."""
    return np.log(_above(floor, x)) - np.log(x.max() - floor)
