"""What a bootstrap draws again (points, whole runs, or residuals), and what its draws say.

Percentile intervals: Efron & Tibshirani 1993, ch. 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.search import Problem
from stepsight.scaling.intervals import tails

Resample = Literal["pairs", "residuals"]
MIN_RUNS = 3  # fewer say nothing of the scatter between runs
PATIENCE = 20  # draws per resample wanted, of which some do not determine a curve
Ends = tuple[float, float]  # of an interval
UNKNOWN: Ends = (math.nan, math.nan)


@dataclass(frozen=True)
class Resampler:
    """One way to draw a data set that could have been measured instead."""

    kind: str  # points, runs or residuals
    draw: Callable[[np.random.Generator], tuple[Array, Array]]  # -> weights "n", v "n"


def pairs(v: Array, groups: Sequence[Hashable] | None) -> Resampler:
    """Points drawn with replacement, or whole groups of them when there are at least three; a draw
    is how often each point is in it."""
    labels: list[Hashable] = [*range(len(v))] if groups is None else [*groups]
    by_run = groups is not None and len(set(labels)) >= MIN_RUNS
    if not by_run:
        labels = [*range(len(v))]
    places = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    owner, count = np.array([places[label] for label in labels]), len(places)

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        return times[owner].astype(float), v

    return Resampler("runs" if by_run else "points", draw)


def residuals(curve: Array, scatter: Array, parameters: int) -> Resampler:
    """The same points, the curve plus residuals drawn with replacement, "n" each."""
    n, around = len(curve), widened(scatter, parameters)
    return Resampler("residuals", lambda rng: (np.ones(n), curve + rng.choice(around, size=n)))


def widened(scatter: Array, parameters: int) -> Array:
    """Residuals "n" as large as the errors that they stand for.

    Centred, and times sqrt(n / (n - k)), since a fit of k parameters has pulled the curve towards
    the points (Efron & Tibshirani 1993, sec. 9.4).
    """
    n = len(scatter)
    return (scatter - scatter.mean()) * np.sqrt(n / max(n - parameters, 1))


def resampled(
    data: Problem,
    resampler: Resampler,
    count: int,
    seed: int,
    determines: Callable[[NDArray[np.bool_]], bool] | None = None,
) -> Problem:
    """The problem of `count` resamples, a row each; fewer where too few draws determine a curve.

    determines: of the points with a weight, by default whether as many as the curve has parameters
    are distinct.
    """
    rng, k = np.random.default_rng(seed), len(data.form.parameters)
    draws: list[tuple[Array, Array]] = []
    for _ in range(PATIENCE * count):
        weights, v = resampler.draw(rng)
        kept = weights > 0
        if determines(kept) if determines else len(np.unique(data.u[kept], axis=0)) >= k:
            draws.append((weights, v))
        if len(draws) == count:
            break
    weights, v = (np.array(part).reshape(-1, len(data.u)) for part in zip(*draws or [((), ())]))
    return data._replace(weights=weights, v=v)


def percentiles(draws: Array, level: float) -> list[Ends]:
    """Ends of the central interval of each parameter, "m k" -> k; nan without draws."""
    if not len(draws):
        return [UNKNOWN] * draws.shape[1]
    return [(lo, hi) for lo, hi in np.quantile(draws, tails(level), axis=0).T.tolist()]


def predictive(log_curves: Array, scatter: Array, parameters: int, level: float) -> Ends:
    """Where a new measurement should fall: quantiles over the curve of every resample, "m", plus
    every residual of the fit, "n" log y, widened."""
    spread = log_curves[:, None] + widened(scatter, parameters)
    lo, hi = np.exp(np.quantile(spread, tails(level))).tolist()
    return lo, hi
