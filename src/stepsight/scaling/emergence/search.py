"""The elbow model and its maximum likelihood: where does performance leave its base?

    Perf = A max(0, E(D) - L) + B,    E(D) = k (log D)^alpha + C

(arXiv:2411.16035): L the loss of the pretrained model, D the fine-tuning images. A model leaves the
base B once its loss is below the elbow E(D), which more images raise.

Under Gaussian noise maximum likelihood is least squares. For given elbows the curve is linear in
A and B, so that only the elbows are searched for (variable projection, Golub & Pereyra 1973). They
are searched as E at the fewest and at the most images and alpha, which the points determine well,
while k and C trade off against alpha. Points that pass the elbow make kinks and local optima, so
every pair of elbows and every alpha on a grid is tried before a start is polished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

ALPHA = (0.05, 5.0)
ALPHAS = 9  # on the grid
ELBOWS = 31  # on the grid, along each of the two
BEYOND = 1.0  # ranges of losses that an elbow may lie outside of it
MAX_EVALUATIONS = 60
QUIET = 1e-9  # of the range of y: less noise than this is arithmetic
PARAMETERS = ("A", "B", "k", "alpha", "C", "sigma")


class Points(NamedTuple):
    """What was measured, "n" each."""

    loss: Array
    images: Array
    y: Array

    @property
    def span(self) -> float:
        return float(np.ptp(self.loss))

    @property
    def extent(self) -> float:
        """Of y; never zero."""
        return float(np.ptp(self.y)) or 1.0


class Optimum(NamedTuple):
    """Where a search ended; theta is (alpha, E at the fewest images, E at the most)."""

    theta: Array
    slope: float  # A
    base: float  # B
    rss: float  # weighted


@dataclass(frozen=True)
class ElbowModel:
    """The model on the points' own range of images and losses; B is fixed where `base` is given."""

    points: Points
    base: float | None

    @property
    def free(self) -> int:
        """Parameters of the curve."""
        return 5 - (self.base is not None)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the elbows."""
        loss, margin = self.points.loss, BEYOND * self.points.span
        return float(loss.min()) - margin, float(loss.max()) + margin

    def elbows(self, theta: Array) -> Array:
        """theta "... 3" -> E at each point "... n"."""
        alpha, fewest, most = (theta[..., i, None] for i in range(3))
        return fewest + (most - fewest) * self._share(alpha)

    def depth(self, theta: Array) -> Array:
        """How far each model is past its elbow: theta "... 3" -> "... n"."""
        return np.maximum(self.elbows(theta) - self.points.loss, 0.0)

    def curve(self, theta: Array, slope: Array | float, base: Array | float) -> Array:
        return slope * self.depth(theta) + base

    def fit(self, theta: Array, weights: Array) -> tuple[Array, Array, Array]:
        """The best A, not negative, and B for given elbows, and the weighted sum of squares.

        theta "... 3", weights "n" -> "..." each.
        """
        return _line(self.depth(theta), self.points.y, weights, self.base)

    def residuals(self, theta: Array, weights: Array) -> Array:
        slope, base, _ = self.fit(theta, weights)
        return np.sqrt(weights) * (self.curve(theta, slope, base) - self.points.y)

    def reported(self, theta: Array) -> tuple[Array, Array, Array]:
        """theta "... 3" -> k, alpha and C, "..." each."""
        alpha, fewest, most = np.moveaxis(theta, -1, 0)
        low, high = self._ends
        k = (most - fewest) / (high**alpha - low**alpha)
        return k, alpha, fewest - k * low**alpha

    @property
    def _ends(self) -> tuple[float, float]:
        images = self.points.images
        return float(np.log(images.min())), float(np.log(images.max()))

    def _share(self, alpha: Array) -> Array:
        """(log D)^alpha, from 0 at the fewest images to 1 at the most."""
        low, high = self._ends
        ends = low**alpha, high**alpha
        return (np.log(self.points.images) ** alpha - ends[0]) / (ends[1] - ends[0])


class Search:
    """Least squares under any weights of the same points; what the grid needs is computed once."""

    def __init__(self, model: ElbowModel) -> None:
        self.model = model
        self._grid = _grid(model.bounds)
        self._depth = model.depth(self._grid)

    def best(self, weights: Array, starts: int = ALPHAS, near: Array | None = None) -> Optimum:
        """The best of the `starts` best alphas of the grid, and of `near`, each polished."""
        y, base = self.model.points.y, self.model.base
        rss = _line(self._depth, y, weights, base)[2].reshape(ALPHAS, -1)
        chosen = np.argsort(rss.min(axis=1))[:starts]
        pairs = self._grid.reshape(ALPHAS, -1, 3)
        begin = [pairs[i, rss[i].argmin()] for i in chosen] + ([] if near is None else [near])
        found = [self._polish(theta, weights) for theta in begin]
        return min(found, key=lambda optimum: optimum.rss)

    def _polish(self, theta: Array, weights: Array) -> Optimum:
        """Local least squares in log alpha, the lower elbow and how far the other is above it."""
        model, scale = self.model, self.model.points.span
        low, high = model.bounds

        def inner(q: Array) -> Array:
            return np.array([np.exp(q[0]), q[1], min(q[1] + q[2], high)])

        edges = [np.log(ALPHA[0]), low, 0.0], [np.log(ALPHA[1]), high, high - low]
        start = np.clip([np.log(theta[0]), theta[1], theta[2] - theta[1]], *edges)
        found = least_squares(
            lambda q: model.residuals(inner(q), weights),
            start,
            bounds=edges,
            x_scale=(1.0, scale, scale),
            max_nfev=MAX_EVALUATIONS,
            xtol=1e-10,
        )
        optimum = inner(found.x)
        slope, base, _ = model.fit(optimum, weights)
        rss = np.sum(model.residuals(optimum, weights) ** 2)
        return Optimum(optimum, float(slope), float(base), float(rss))


def parameters(model: ElbowModel, found: Optimum, count: float) -> Array:
    """A, B, k, alpha, C, sigma; `count` points, with weights summed."""
    k, alpha, c = model.reported(found.theta)
    sigma = max(np.sqrt(found.rss / count), QUIET * model.points.extent)
    return np.array([found.slope, found.base, k, alpha, c, sigma])


def elbow(k: Array | float, alpha: Array | float, c: Array | float, images: Array) -> Array:
    """E(D)."""
    return k * np.log(images) ** alpha + c


def _grid(bounds: tuple[float, float]) -> Array:
    """Elbows that do not fall with images, for each alpha in turn: "m 3"."""
    levels = np.linspace(*bounds, ELBOWS)
    low, high = np.triu_indices(ELBOWS)
    alphas = np.repeat(np.geomspace(*ALPHA, ALPHAS), len(low))
    return np.stack([alphas, np.tile(levels[low], ALPHAS), np.tile(levels[high], ALPHAS)], axis=1)


def _line(x: Array, y: Array, weights: Array, base: float | None) -> tuple[Array, Array, Array]:
    """Weighted least squares of y = A x + B with A >= 0: A, B and the sum of squares.

    x "... n" -> "..." each; where x is constant A is zero.
    """
    total = weights.sum()
    if base is None:
        middle, level = x @ weights / total, weights @ y / total
        up, x = y - level, x - middle[..., None]
    else:
        middle, level, up = np.zeros(x.shape[:-1]), base, y - base
    spread, shared = x**2 @ weights, x @ (weights * up)
    slope = np.maximum(shared, 0.0) / np.where(spread > 0, spread, 1.0)
    rss = weights @ up**2 - 2 * slope * shared + slope**2 * spread
    return slope, level - slope * middle, np.maximum(rss, 0.0)
