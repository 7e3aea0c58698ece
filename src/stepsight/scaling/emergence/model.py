"""The elbow as a form: where does performance leave its base?

    Perf = A max(0, E(D) - L) + B,    E(D) = k (log D)^alpha + C

(arXiv:2411.16035): L the loss of the pretrained model, D the fine-tuning images. A model leaves the
base B once its loss is below the elbow E(D), which more images raise.

Under Gaussian noise maximum likelihood is least squares. The elbows are searched as E at the fewest
and at the most images and alpha, which the points determine well, while k and C trade off against
alpha. Points that pass the elbow make kinks and local optima, so searches start from every alpha
of a grid, each with the best pair of elbows there; for given elbows the best A and B are a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import xlogy

from stepsight.scaling.fitting.form import Array, Form
from stepsight.scaling.fitting.search import Optima, Problem, problem

FORM = "emergence"
FORMULA = "y = A max(0, E(D) - L) + B, E(D) = k (log D)^alpha + C"
PARAMETERS = ("A", "B", "k", "alpha", "C", "sigma")
ALPHA = (0.05, 5.0)
ALPHAS = 9  # on the grid
ELBOWS = 31  # on the grid, along each of the two
BEYOND = 1.0  # ranges of losses that an elbow may lie outside of it
QUIET = 1e-9  # of the range of y: less noise than this is arithmetic


class Points(NamedTuple):
    """What was measured, "n" each."""

    loss: Array
    images: Array
    y: Array


@dataclass(frozen=True)
class Elbow(Form):
    """Inner parameters: log alpha, E at the fewest images, its rise to the most, A and B; `u` are
    losses and logs of images, `v` performances. B is held where `base` is given."""

    name: str = FORM
    formula: str = FORMULA
    parameters: tuple[str, ...] = PARAMETERS[:5]
    base: float | None = None

    @property
    def free(self) -> int:
        """Parameters of the curve."""
        return 5 - (self.base is not None)

    def curve(self, q: Array, u: Array) -> Array:
        return q[:, 3:4] * self.depth(q, u) + q[:, 4:5]

    def jacobian(self, q: Array, u: Array) -> Array:
        _, fewest, rise, slope, _ = (q[:, i : i + 1] for i in range(5))
        share, by_alpha = _share(q, u)
        depth, inside = self.depth(q, u), fewest + rise <= _highest(u)
        past = np.where(depth > 0, slope, 0.0)
        by_fewest = np.where(inside, 1.0, 1.0 - share)
        by_rise = np.where(inside, share, 0.0)
        slopes = [past * _rise(q, u) * by_alpha, past * by_fewest, past * by_rise, depth]
        return np.stack([*slopes, np.ones_like(depth)], axis=2)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Elbows lie within one range of losses outside of the models, and do not fall."""
        low, high = u[:, 0].min() - BEYOND * np.ptp(u[:, 0]), _highest(u)
        level = (-np.inf, np.inf) if self.base is None else (self.base, self.base)
        lower = [math.log(ALPHA[0]), low, 0.0, 0.0, level[0]]
        return np.array(lower), np.array([math.log(ALPHA[1]), high, high - low, np.inf, level[1]])

    def starts(self, u: Array, v: Array) -> Array:
        return self.best_on_grid(u, v, np.ones((1, len(v))), ALPHAS)[0]

    def best_on_grid(self, u: Array, v: Array, weights: Array, count: int) -> Array:
        """Starts "b s 5" under `weights` "b n": the best pair of elbows for each of the `count`
        best alphas of the grid."""
        grid = self._grid(u)
        depth, total = self.depth(grid, u), weights.sum(axis=1)
        level = weights @ v / total if self.base is None else np.full(len(weights), self.base)
        up = weights * (v - level[:, None])
        middle = depth @ weights.T / total if self.base is None else 0.0
        spread = depth**2 @ weights.T - middle**2 * total  # "m b"
        shared = depth @ up.T
        slope = np.maximum(shared, 0.0) / np.where(spread > 0, spread, 1.0)
        shape = ALPHAS, len(grid) // ALPHAS, len(weights)
        gain = np.reshape(slope * (2 * shared - slope * spread), shape)
        pairs = gain.argmax(axis=1) + np.arange(ALPHAS)[:, None] * gain.shape[1]  # "alphas b"
        order = np.argsort(-gain.max(axis=1), axis=0)[:count]
        place, row = np.take_along_axis(pairs, order, axis=0).T, np.arange(len(weights))[:, None]
        bases = level[:, None] - (slope * middle)[place, row]
        linear = np.stack([slope[place, row], bases], axis=2)
        return np.concatenate([grid[place, :3], linear], axis=2)

    def _grid(self, u: Array) -> Array:
        """Elbows that do not fall with images, for each alpha in turn: "m 5", A and B unset."""
        lower, upper = self.bounds(u, u[:, 0])
        levels = np.linspace(lower[1], upper[1], ELBOWS)
        low, high = np.triu_indices(ELBOWS)
        alphas = np.repeat(np.linspace(lower[0], upper[0], ALPHAS), len(low))
        elbows = np.tile([levels[low], levels[high] - levels[low]], ALPHAS)
        return np.column_stack([alphas, *elbows, *np.zeros((2, len(alphas)))])

    def elbows(self, q: Array, u: Array) -> Array:
        """E at each point, "b n"."""
        return q[:, 1:2] + _rise(q, u) * _share(q, u)[0]

    def depth(self, q: Array, u: Array) -> Array:
        """How far each model is past its elbow, "b n"."""
        return np.maximum(self.elbows(q, u) - u[:, 0], 0.0)

    def natural(self, q: Array, u: Array) -> Array:
        """A, B, k, alpha and C, "b 5"."""
        alpha, low, high = np.exp(q[:, 0]), u[:, 1].min(), u[:, 1].max()
        k = _rise(q, u)[:, 0] / (high**alpha - low**alpha)
        return np.stack([q[:, 3], q[:, 4], k, alpha, q[:, 1] - k * low**alpha], axis=1)


def elbow_problem(points: Points, base: float | None) -> Problem:
    """Least squares of the elbow; every point counts once."""
    u = np.column_stack([points.loss, np.log(points.images)])
    return problem(Elbow(base=base), u, points.y)


def reported(data: Problem, best: Optima, counts: Array | float | None = None) -> Array:
    """A, B, k, alpha, C and sigma of optima, "b 6"; `counts` "b" are points, with weights summed,
    by default those of `data`."""
    assert isinstance(data.form, Elbow)
    noise = np.sqrt(2 * best.objective / (len(data.v) if counts is None else counts))
    sigma = np.maximum(noise, QUIET * extent(data))
    return np.column_stack([data.form.natural(best.q, data.u), sigma])


def extent(data: Problem) -> float:
    """Of performance; never zero."""
    return float(np.ptp(data.v)) or 1.0


def elbow(k: Array | float, alpha: Array | float, c: Array | float, images: Array) -> Array:
    """E(D)."""
    return k * np.log(images) ** alpha + c


def _highest(u: Array) -> float:
    """The highest elbow that is searched."""
    return float(u[:, 0].max() + BEYOND * np.ptp(u[:, 0]))


def _rise(q: Array, u: Array) -> Array:
    """From the fewest images to the most, "b 1"."""
    return np.minimum(q[:, 2:3], _highest(u) - q[:, 1:2])


def _share(q: Array, u: Array) -> tuple[Array, Array]:
    """(log D)^alpha, from 0 at the fewest images to 1 at the most, and its derivative by log alpha,
    "b n" each."""
    alpha, logs = np.exp(q[:, :1]), u[:, 1] / u[:, 1].max()
    power, first = logs**alpha, logs.min() ** alpha
    share = (power - first) / (1 - first)
    turned = xlogy(power, logs) - (1 - share) * xlogy(first, logs.min())
    return share, alpha * turned / (1 - first)
