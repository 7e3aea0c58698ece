"""What a bootstrap of a fitted curve draws again: points, whole runs, or residuals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepsight.scaling.laws.forms import Array

Resample = Literal["pairs", "residuals"]
MIN_RUNS = 3


@dataclass(frozen=True)
class Resampler:
    """One way to draw a data set that could have been measured instead."""

    kind: str  # points, runs or residuals
    draw: Callable[[np.random.Generator], tuple[Array, Array]]  # -> weights "n", log_y "n"


def pairs(log_y: Array, groups: Sequence[Hashable] | None) -> Resampler:
    """Points drawn with replacement, or whole groups of them when there are at least three.

    Fewer groups say nothing about the scatter between groups, so points are drawn instead. A draw
    is how often each point is in it.
    """
    labels: list[Hashable] = [*range(len(log_y))] if groups is None else [*groups]
    by_run = groups is not None and len(set(labels)) >= MIN_RUNS
    if not by_run:
        labels = [*range(len(log_y))]
    places = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    owner, count = np.array([places[label] for label in labels]), len(places)

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        return times[owner].astype(float), log_y

    return Resampler("runs" if by_run else "points", draw)


def residuals(log_curve: Array, scatter: Array, parameters: int) -> Resampler:
    """The same x, the curve plus residuals drawn with replacement, "n" each."""
    n, around = len(log_curve), widened(scatter, parameters)
    return Resampler("residuals", lambda rng: (np.ones(n), log_curve + rng.choice(around, size=n)))


def widened(scatter: Array, parameters: int) -> Array:
    """Residuals "n" as large as the errors that they stand for.

    Centred, and times sqrt(n / (n - k)), since a fit of k parameters has pulled the curve towards
    the points (Efron & Tibshirani 1993, sec. 9.4).
    """
    n = len(scatter)
    return (scatter - scatter.mean()) * np.sqrt(n / max(n - parameters, 1))
