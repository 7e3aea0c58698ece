"""Bootstrap intervals of what is measured on images: means, paired differences, ratios, pools.

All are percentile intervals (Efron & Tibshirani 1993, ch. 13) over resampled images, and all come
down to one thing: sums of rows over resamples. Images are the unit because pixels of one image
are not independent. Comparisons resample pairs, so that what makes an image hard cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95  # of intervals of what was measured or fitted
PREDICTIVE = 0.9  # of intervals that should hold a new measurement
CHUNK = 250  # resamples at a time, which bounds the memory for large sets

# A function of sums over images, for many resamples at once: "r ..." -> "r".
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A number, the ends of its interval, and how many images it rests on."""

    value: float
    lo: float
    hi: float
    n: int


def tails(level: float) -> tuple[float, float]:
    """The quantiles between which the central interval of a level lies."""
    return (1 - level) / 2, (1 + level) / 2


def half_width(level: float) -> float:
    """Half the central interval of a normal distribution, in standard deviations."""
    return NormalDist().inv_cdf((1 + level) / 2)


class Drawing(TypedDict, total=False):
    """How an interval is drawn; by default `RESAMPLES`, `LEVEL` and 0."""

    resamples: int
    level: float
    seed: int


def mean_interval(a: ArrayLike, **drawing: Unpack[Drawing]) -> Interval:
    """Mean of one number per image, `a` "n"; images without one (nan) are left out."""
    return _interval(_present(a), lambda sums, n: sums[:, 0] / n, **drawing)


def paired_interval(a: ArrayLike, b: ArrayLike, **drawing: Unpack[Drawing]) -> Interval:
    """Mean of a - b over images, `a` and `b` "n" in the same order; pairs with nan are left out."""
    return mean_interval(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), **drawing)


def ratio_interval(a: ArrayLike, b: ArrayLike, **drawing: Unpack[Drawing]) -> Interval:
    """mean(a) / mean(b) over images, resampled in pairs; pairs with nan are left out."""
    return _interval(_present(a, b), lambda sums, n: quotient(sums), **drawing)


def pooled_interval(rows: ArrayLike, of: Statistic, **drawing: Unpack[Drawing]) -> Interval:
    """A function of summed rows, e.g. mIoU of a confusion matrix, `rows` "n ..." of counts."""
    array = np.asarray(rows, dtype=np.float64)
    flat = array.reshape(len(array), -1)
    return _interval(flat, lambda sums, n: of(sums.reshape(-1, *array.shape[1:])), **drawing)


def quotient(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (total, weight), "r 2" -> "r": a mean over images, or over pixels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


# A statistic of sums over `n` images, vectorised: "r k" sums of r resamples -> "r".
_OfSums = Callable[[NDArray[np.float64], int], NDArray[np.float64]]


def _present(*columns: ArrayLike) -> NDArray[np.float64]:
    """Columns side by side, "n k", without the images that lack one of them."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    assert len({array.shape for array in arrays}) == 1 and arrays[0].ndim == 1
    rows = np.stack(arrays, axis=1)
    return rows[np.isfinite(rows).all(axis=1)]


def _interval(
    rows: NDArray[np.float64],
    of_sums: _OfSums,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """`rows` "n k"; one image has no spread, so its interval is unknown (nan)."""
    n = len(rows)
    value = float(of_sums(rows.sum(axis=0, keepdims=True), n)[0]) if n else float("nan")
    if n < 2:
        return Interval(value, float("nan"), float("nan"), n)
    # A matrix product gives the sums, as only how often each image is drawn matters.
    sums = np.concatenate([counts @ rows for counts in resamples_of(n, resamples, seed)])
    lo, hi = np.quantile(of_sums(sums, n), tails(level))
    return Interval(value, float(lo), float(hi), n)


def resamples_of(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of `n` images is drawn, "r n", for some resamples after others.

    Resample i is row i of `np.random.default_rng(seed).integers(n, size=(resamples, n))`.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n)
        yield counts.reshape(size, n).astype(np.float64)
