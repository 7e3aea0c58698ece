"""Bootstrap intervals of what is measured on images: means, paired differences, ratios, pools.

All are percentile intervals (Efron & Tibshirani 1993, ch. 13) over resampled images, and all come
down to one thing: sums of rows over resamples. Images are the unit because pixels of one image
are not independent. Comparisons resample pairs, so that what makes an image hard cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
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


def mean_interval(
    a: ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Mean of one number an image, `a` "n"; images without one (nan) are left out."""
    rows = _present(a)
    return _interval(rows, _mean, resamples, level, seed)


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of a - b over images, `a` and `b` "n" in the same order; pairs with nan are left out."""
    rows = _present(a, b)
    return _interval(rows[:, :1] - rows[:, 1:], _mean, resamples, level, seed)


def ratio_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """mean(a) / mean(b) over images, resampled in pairs; pairs with nan are left out."""
    return _interval(_present(a, b), _ratio, resamples, level, seed)


def pooled_interval(
    rows: ArrayLike,
    statistic: Statistic,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """A function of summed rows, e.g. mIoU of a confusion matrix, `rows` "n ..." of counts."""
    array = np.asarray(rows, dtype=np.float64)
    shape = array.shape[1:]

    def of_sums(sums: NDArray[np.float64], counted: int) -> NDArray[np.float64]:
        return statistic(sums.reshape(-1, *shape))

    return _interval(array.reshape(len(array), -1), of_sums, resamples, level, seed)


# A statistic of sums over `n` images, vectorised: "r k" sums of r resamples -> "r".
_OfSums = Callable[[NDArray[np.float64], int], NDArray[np.float64]]


def _mean(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return sums[:, 0] / n


def _ratio(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


def _present(*columns: ArrayLike) -> NDArray[np.float64]:
    """Columns side by side, "n k", without the images that lack one of them."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    assert len({array.shape for array in arrays}) == 1 and arrays[0].ndim == 1
    rows = np.stack(arrays, axis=1)
    return rows[np.isfinite(rows).all(axis=1)]


def _interval(
    rows: NDArray[np.float64], of_sums: _OfSums, resamples: int, level: float, seed: int
) -> Interval:
    """`rows` "n k"; one image has no spread, so its interval is unknown (nan)."""
    n = len(rows)
    value = float(of_sums(rows.sum(axis=0, keepdims=True), n)[0]) if n else float("nan")
    if n < 2:
        return Interval(value, float("nan"), float("nan"), n)
    draws = of_sums(_resampled_sums(rows, resamples, seed), n)
    tail = (1 - level) / 2
    lo, hi = np.quantile(draws, [tail, 1 - tail])
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


def _resampled_sums(rows: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums over images drawn with replacement, "n k" -> "resamples k": a matrix product, as only
    how often each image is drawn matters."""
    return np.concatenate([counts @ rows for counts in resamples_of(len(rows), resamples, seed)])
