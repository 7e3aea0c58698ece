"""Whether points bend away from a fitted law: what terms of second order in its logs would add.

A floor that is not in the form, an exponent that rises or falls along an input, and an interaction
of two inputs all leave a residual of that shape, whatever form made it. The squares and products of
the logs are added to the slopes of the law at its optimum, and an F-test says whether they explain
more than chance (the score test of a wider model: Davidson & MacKinnon 1984, Int. Econ. Rev.
25:485). Bending that is sure but small beside the scatter is no reason to deny a law: it has to
move a forecast out of the scatter, or to be most of what the scatter is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.search import Optima, Problem
from stepsight.scaling.intervals import PREDICTIVE, tails
from stepsight.scaling.laws.spread import Spread

CHANCE = 0.05  # probability of as strong a bend of a law that does not bend
SURE, MOST = 1e-3, 0.5  # where most of the scatter is structure, the law is no law anywhere
AHEAD = 4.0  # times the largest place measured, along all inputs together
LEAST_WITHIN = 1e-4  # variance within runs beside that between them
OUTLIER = 4.0  # robust deviations, beyond which a residual counts as that many


@dataclass(frozen=True)
class Bend:
    """Second-order terms beside a law."""

    chance: float  # probability of the F-test
    shift: float  # of the forecast at `AHEAD` times the data, in log y
    explained: float  # share of the squares of residuals
    limit: float  # half of a 90 % interval of the scatter alone

    @property
    def denies(self) -> bool:
        far = self.chance < CHANCE and abs(self.shift) > self.limit
        return far or (self.chance < SURE and self.explained > MOST)

    def __str__(self) -> str:
        return (
            f"no law: the points bend away from it (p {self.chance:.1g}); terms of second order "
            f"explain {self.explained:.0%} of the residuals' variance and move the forecast at "
            f"{AHEAD:g} times the data by {np.expm1(self.shift):+.0%}"
        )


def bend(data: Problem, best: Optima, spread: Spread, owner: NDArray[np.intp]) -> Bend | None:
    """None where the points leave no degree of freedom to tell."""
    u, form = data.u, data.form
    ahead = u.max(axis=0, keepdims=True) + np.log(AHEAD) / u.shape[1]
    left = _tamed(data.v - form.curve(best.q, u)[0])
    slope = form.jacobian(best.q, ahead)
    free = (best.q[0] > data.lower) & (best.q[0] < data.upper)
    law = form.jacobian(best.q, u)[0][:, free]
    if (whiten := _whitening(spread, owner)) is not None:
        left, law, second = whiten @ left, whiten @ law, whiten @ _second(u)
    else:
        second = _second(u)
    rss, rank, _ = _regress(law, left)
    rest, whole, found = _regress(np.hstack([law, second]), left)
    added = whole - rank
    spare = spread.spare - added
    if spare < 1 or added < 1 or rest <= 0:
        return None
    shift = float(np.hstack([slope[0][:, free], _second(ahead)])[0] @ found)
    scatter = np.sqrt(spread.within + spread.between)
    limit = float(stdtrit(spread.spare, tails(PREDICTIVE)[1]) * scatter)
    error = rest / max(len(left) - whole, 1)  # of all points, while runs alone are its freedom
    chance = float(fdtrc(added, spare, (rss - rest) / added / error))
    return Bend(chance, shift, (rss - rest) / rss, limit)


def _second(u: Array) -> Array:
    """Squares and products of the inputs, "n t"."""
    pairs = combinations_with_replacement(range(u.shape[1]), 2)
    return np.stack([u[:, i] * u[:, j] for i, j in pairs], axis=1)


def _tamed(left: Array) -> Array:
    """Residuals "n" with outliers pulled in: one bad point is no bend."""
    most = OUTLIER * float(np.median(np.abs(left))) / 0.6745
    return np.clip(left, -most, most)


def _regress(columns: Array, left: Array) -> tuple[float, int, Array]:
    """Sum of squares that is left, rank, and coefficients, "k"."""
    scale = np.linalg.norm(columns, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found, _, rank, _ = np.linalg.lstsq(columns / scale, left, rcond=1e-8)
    return float(np.sum((left - columns / scale @ found) ** 2)), int(rank), found / scale


def _whitening(spread: Spread, owner: NDArray[np.intp]) -> Array | None:
    """What makes the errors of runs independent, "n n"; None where they are."""
    if not spread.between:
        return None
    shared = spread.between * (owner[:, None] == owner)
    within = max(spread.within, LEAST_WITHIN * spread.between)
    return np.linalg.inv(np.linalg.cholesky(within * np.eye(len(owner)) + shared))
