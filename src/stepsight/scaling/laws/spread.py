"""How far from a law a new point should fall: its scatter, and what its parameters leave open.

Errors of the parameters are carried to a place by the slopes of the curve there (delta method).
Where points come in runs, each run has an offset of its own beside the scatter of its points; the
two variances are those that explain the squares of residuals between and within runs (analysis of
variance with random effects: Searle, Casella & McCulloch 1992, ch. 5).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from stepsight.scaling.fitting.form import Array

ROUNDING = 1e-6  # scatter of log y below this is arithmetic, not evidence
SINGULAR = 1e-10  # of the curvature: directions that the points do not determine at all


@dataclass(frozen=True)
class Spread:
    """Errors that a fit expects of itself, in log y."""

    covariance: Array  # "k k" of the parameters
    within: float  # variance of points around their run
    between: float  # variance of runs around the law
    spare: float  # degrees of freedom of the variances

    def deviations(self, slopes: Array) -> Array:
        """Standard deviations of new points, each of a new run, at slopes of the curve "m k"."""
        open_left = np.einsum("mi,ij,mj->m", slopes, self.covariance, slopes)
        scatter = max(self.within + self.between, ROUNDING**2)
        return np.sqrt(scatter + np.maximum(open_left, 0.0))


def owners(groups: Sequence[Hashable] | None, n: int) -> NDArray[np.intp]:
    """The number of each point's run, "n"; without groups every point is one of its own."""
    if groups is None:
        return np.arange(n)
    places = {label: i for i, label in enumerate(dict.fromkeys(groups))}
    return np.array([places[label] for label in groups])


def spread_of(slopes: Array, left: Array, owner: NDArray[np.intp], huber: float) -> Spread:
    """Of a fit with slopes "n k" at its points and residuals `left` "n"."""
    n, k = slopes.shape
    scale = math.sqrt(float(left @ left) / max(n - k, 1))
    inverse = (
        1
        / _efficiency(huber / max(scale, 1e-300))
        * np.linalg.pinv(slopes.T @ slopes, rcond=SINGULAR, hermitian=True)
    )
    labels, counts = np.unique(owner, return_counts=True)
    if len(labels) == n:
        within = float(left @ left) / max(n - k, 1)
        return Spread(within * inverse, within, 0.0, max(n - k, 1))
    member = (owner[:, None] == labels).astype(float)  # "n r"
    project = inverse @ slopes.T  # residuals are what this leaves of the errors
    shared = member - slopes @ (project @ member)  # of an offset of one run
    of_runs = member / np.sqrt(counts)
    hidden = of_runs - slopes @ (project @ of_runs)
    spare = max(float(np.sum(hidden * of_runs)), 1.0)  # between runs
    most = float(np.sum((of_runs.T @ left) ** 2))
    rest = max(float(left @ left) - most, 0.0)
    loads = float(np.sum((of_runs.T @ shared) ** 2))
    inside, outside = max(n - k - spare, 1.0), max(float(np.sum(shared**2)) - loads, 0.0)
    within, between = np.linalg.lstsq(
        np.array([[spare, loads], [inside, outside]]), np.array([most, rest]), rcond=None
    )[0].tolist()
    if between <= 0:
        within, between = float(left @ left) / max(n - k, 1), 0.0
    within = max(within, 0.0)
    by_runs = project @ member
    covariance = within * inverse + between * by_runs @ by_runs.T
    return Spread(covariance, within, between, spare)


def _efficiency(turn: float) -> float:
    """Of a Huber fit of normal errors beside least squares; the loss turns linear at `turn`
    standard deviations (Huber 1981, Robust Statistics, sec. 4.5)."""
    if turn > 5:
        return 1.0
    turn = max(turn, 1e-3)  # all but least absolute deviations
    inside, density = 2 * float(ndtr(turn)) - 1, math.exp(-(turn**2) / 2) / math.sqrt(2 * math.pi)
    psi_squared = inside - 2 * turn * density + turn**2 * (1 - inside)
    return inside**2 / psi_squared
