"""Bootstrap intervals against normal theory, direct resampling and exact identities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.scaling.intervals import (
    mean_interval,
    paired_interval,
    pooled_interval,
    ratio_interval,
)

RNG = np.random.default_rng(0)
A = RNG.gamma(2.0, 0.1, 400)
B = 0.9 * A + RNG.normal(0, 0.005, 400)


def test_mean_agrees_with_normal_theory():
    one = mean_interval(A)
    half = 1.96 * A.std(ddof=1) / math.sqrt(len(A))
    assert one.value == pytest.approx(A.mean(), rel=1e-12) and one.n == 400
    assert one.lo == pytest.approx(A.mean() - half, abs=0.1 * half)
    assert one.hi == pytest.approx(A.mean() + half, abs=0.1 * half)


def test_mean_agrees_with_plain_resampling():
    small = A[:25]
    index = np.random.default_rng(1).integers(25, size=(20000, 25))
    lo, hi = np.quantile(small[index].mean(axis=1), [0.025, 0.975])
    one = mean_interval(small, resamples=20000)
    assert one.lo == pytest.approx(lo, rel=0.01) and one.hi == pytest.approx(hi, rel=0.01)


def test_pairing_removes_what_images_share():
    paired = paired_interval(B, A)
    unpaired = mean_interval(A)
    assert paired.value == pytest.approx((B - A).mean(), rel=1e-9)
    assert paired.hi < 0
    assert paired.hi - paired.lo < 0.3 * (unpaired.hi - unpaired.lo)
    mirrored = paired_interval(A, B)
    assert (mirrored.lo, mirrored.hi) == pytest.approx((-paired.hi, -paired.lo), rel=1e-9)


def test_ratio_of_means():
    one = ratio_interval(B, A)
    assert one.value == pytest.approx(B.mean() / A.mean(), rel=1e-12)
    assert one.lo < one.value < one.hi < 1
    exact = ratio_interval(3 * A, A)
    assert (exact.value, exact.lo, exact.hi) == pytest.approx((3.0, 3.0, 3.0), rel=1e-12)


def test_pool_of_one_ratio_is_the_ratio_of_means():
    pooled = pooled_interval(np.stack([B, A], axis=1), lambda sums: sums[:, 0] / sums[:, 1])
    ratio = ratio_interval(B, A)
    assert (pooled.value, pooled.lo, pooled.hi) == pytest.approx((ratio.value, ratio.lo, ratio.hi))


def test_pool_of_confusion_matrices():
    """mIoU: rows keep their shape, and the pooled value is that of the summed matrix."""

    def miou(confusion: np.ndarray) -> np.ndarray:
        hit = np.diagonal(confusion, axis1=-2, axis2=-1)
        return np.mean(hit / (confusion.sum(-1) + confusion.sum(-2) - hit), axis=-1)

    matrices = RNG.integers(1, 50, size=(60, 3, 3)) + 100 * np.eye(3, dtype=int)
    one = pooled_interval(matrices, miou, resamples=300)
    assert one.value == pytest.approx(miou(matrices.sum(axis=0)), rel=1e-12)
    assert one.lo < one.value < one.hi and one.n == 60


def test_coverage_of_the_mean():
    draws = np.random.default_rng(2).exponential(1.0, (200, 60))
    intervals = [mean_interval(row, resamples=300, seed=i) for i, row in enumerate(draws)]
    covered = np.mean([one.lo <= 1.0 <= one.hi for one in intervals])
    assert 0.88 <= covered <= 0.99


def test_images_without_a_value_are_left_out_in_pairs():
    a, b = A.copy(), B.copy()
    a[0], b[1] = np.nan, np.nan
    one = paired_interval(a, b, resamples=100)
    assert one.n == 398 and one.value == pytest.approx((A - B)[2:].mean())


def test_one_image_or_none_has_no_interval():
    one, none = mean_interval([0.5]), mean_interval([])
    assert one.value == 0.5 and math.isnan(one.lo) and one.n == 1
    assert math.isnan(none.value) and none.n == 0


def test_seed_and_level():
    assert mean_interval(A) == mean_interval(A)
    assert mean_interval(A, seed=1) != mean_interval(A)
    assert mean_interval(A, level=0.5).lo > mean_interval(A).lo
