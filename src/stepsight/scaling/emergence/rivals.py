"""What else the points of an elbow could be: curves that an elbow has to beat, or not to lose to.

    straight   y = a - b L + m (log D)^alpha       no base: nothing is left behind
    still      y = A max(0, C - L) + B             one elbow for all numbers of images
    smooth     y = B + H s((c(D) - L) / w)         no elbow: a sigmoid, or a bend of width w
                                                   (s = log(1 + exp)), with c(D) as E(D)

Each is fitted by least squares, on a grid of what is not linear and, the smooth ones, searched from
the best of it. All are compared by AICc.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from stepsight.scaling.emergence.model import ALPHA, Elbow
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import aicc
from stepsight.scaling.fitting.search import Problem

ALPHAS = 25  # of the straight line's grid
STILL = 501  # elbows on a grid over the losses
MIDDLES, BENDS, WIDTHS = (
    13,
    (0.3, 1.0, 3.0),
    (0.02, 0.05, 0.1, 0.2, 0.4),
)  # of a smooth curve's grid
STARTS, EFFORT = 2, 300  # searches of a smooth curve, and evaluations of each
NARROWEST = 0.02  # width over the range of losses: below, a bend is a kink to any design
SMOOTH: dict[str, Callable[[Array], Array]] = {
    "a sigmoid": expit,
    "a rounded elbow": lambda z: np.logaddexp(0.0, z),
}


class Rivals:
    """AICc of each rival on the points of an elbow; `quiet` as for the elbow's own."""

    def __init__(self, data: Problem, quiet: float) -> None:
        assert isinstance(data.form, Elbow)
        self.loss, self.y, self.quiet, self.base = data.u[:, 0], data.v, quiet, data.form.base
        self.logs = data.u[:, 1] / data.u[:, 1].max()

    def straight(self) -> float:
        level = np.ones_like(self.y)
        left = [
            self._left(np.stack([level, -self.loss, self.logs**alpha], axis=1), self.y)
            for alpha in np.geomspace(*ALPHA, ALPHAS)
        ]
        return self._aicc(min(left), 4)

    def still(self) -> float:
        ends = self.loss.min(), self.loss.max() + np.ptp(self.loss)
        depth = np.maximum(np.linspace(*ends, STILL)[:, None] - self.loss, 0.0)
        squares = np.sum(self._off_line(depth) ** 2, axis=1)
        return self._aicc(float(squares.min()), 3 - (self.base is not None))

    def smooth(self) -> tuple[str, float]:
        """The better one of the smooth curves, and its AICc."""
        left = {name: self._searched(rise) for name, rise in SMOOTH.items()}
        best = min(left, key=left.__getitem__)
        return best, self._aicc(left[best], 6 - (self.base is not None))

    def _searched(self, rise: Callable[[Array], Array]) -> float:
        """Least sum of squares over where the curve rises, how images move that, and its width."""
        from scipy.optimize import least_squares

        size, low = float(np.ptp(self.loss)), float(self.loss.min())
        places = np.linspace(low - size / 2, low + 1.5 * size, MIDDLES)
        first, last = np.triu_indices(MIDDLES)
        ends = np.tile([places[first], places[last]], len(BENDS) * len(WIDTHS))
        shapes = np.array([(bend, width) for bend in BENDS for width in WIDTHS])
        bends, widths = np.repeat(shapes, len(first), axis=0).T
        grid = np.column_stack([*ends, np.log(bends), np.log(widths)])

        def left(theta: Array) -> Array:
            return self._off_line(rise(self._depths(theta[None], size)))[0]

        squares = np.sum(self._off_line(rise(self._depths(grid, size))) ** 2, axis=1)
        starts = grid[np.argsort(squares)[:STARTS]]
        if len(self.y) < grid.shape[1]:
            return float(squares.min())
        found = [least_squares(left, start, method="lm", max_nfev=EFFORT) for start in starts]
        return min(2 * float(one.cost) for one in found)

    def _depths(self, theta: Array, size: float) -> Array:
        """How many widths each point is past the middle, "m n"; theta "m 4" are the middles at the
        fewest and at the most images, log alpha and the log of the width over that of losses."""
        alpha = np.exp(np.clip(theta[:, 2:3], *np.log(ALPHA)))
        power, least = self.logs**alpha, self.logs.min() ** alpha
        share = (power - least) / (1 - least)
        middle = theta[:, :1] + np.maximum(theta[:, 1:2] - theta[:, :1], 0.0) * share
        width = np.maximum(np.exp(theta[:, 3:4]), NARROWEST) * size
        return (middle - self.loss) / width

    def _off_line(self, depth: Array) -> Array:
        """What the best y = B + H depth leaves, "m n"; H is not negative, B the base if given."""
        y = self.y - (self.y.mean() if self.base is None else self.base)
        if self.base is None:
            depth = depth - depth.mean(axis=1, keepdims=True)
        spread = np.sum(depth**2, axis=1)
        slope = np.maximum(depth @ y, 0.0) / np.where(spread > 0, spread, 1.0)
        return y - slope[:, None] * depth

    @staticmethod
    def _left(design: Array, y: Array) -> float:
        return float(np.sum((y - design @ np.linalg.lstsq(design, y)[0]) ** 2))

    def _aicc(self, rss: float, parameters: int) -> float:
        return aicc(rss, len(self.y), parameters, self.quiet)
