"""What a bootstrap of a fitted curve draws again: points, whole runs, or residuals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepsight.scaling.forms import Array

Resample = Literal["pairs", "residuals"]
MIN_RUNS = 3


@dataclass(frozen=True)
class Resampler:
    """One way to draw a data set that could have been measured instead."""

    kind: str  # points, runs or residuals
    draw: Callable[[np.random.Generator], tuple[Array, Array]]  # -> u "m", log_y "m"


def pairs(u: Array, log_y: Array, groups: Sequence[Hashable] | None) -> Resampler:
    """Points drawn with replacement, or whole groups of them when there are at least three.

    Fewer groups say nothing about the scatter between groups, so points are drawn instead.
    """
    labels: list[Hashable] = [*range(len(u))] if groups is None else [*groups]
    members = [np.flatnonzero([label == other for other in labels]) for label in _unique(labels)]
    by_run = groups is not None and len(members) >= MIN_RUNS
    if not by_run:
        members = list(np.arange(len(u))[:, None])

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        index = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        return u[index], log_y[index]

    return Resampler("runs" if by_run else "points", draw)


def residuals(u: Array, log_curve: Array, scatter: Array, parameters: int) -> Resampler:
    """The same x, the curve plus residuals drawn with replacement, "n" each.

    Residuals are centred and widened by sqrt(n / (n - k)), since a fit of k parameters has
    pulled the curve towards the points (Efron & Tibshirani 1993, sec. 9.4).
    """
    n = len(u)
    widened = (scatter - scatter.mean()) * np.sqrt(n / max(n - parameters, 1))
    return Resampler("residuals", lambda rng: (u, log_curve + rng.choice(widened, size=n)))


def _unique(labels: list[Hashable]) -> list[Hashable]:
    """In order of appearance."""
    return list(dict.fromkeys(labels))
