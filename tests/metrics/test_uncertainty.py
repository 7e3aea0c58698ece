"""Sparsification and CRPS against slow loops, bounds and closed forms."""

import itertools
import math
from statistics import NormalDist

import pytest
import torch
from scipy.stats import spearmanr

from stepsight.metrics.uncertainty import (
    LEVELS,
    aurg,
    ause,
    calibration_error,
    coverage,
    crps,
    gaussian_interval,
    half_width,
    interval_calibration,
    moments,
    probability_calibration,
    rank_correlation,
    sparsification,
    widened,
)


@pytest.fixture
def errors(rng, valid, spoiled):
    return spoiled(torch.rand(3, 1, 5, 7, generator=rng), valid)


def slow_sparsification(error, by, valid):
    """Remove the most uncertain pixels of one image one by one; no ties."""
    pixels = sorted(
        (float(u), float(e)) for e, u, v in zip(error.flatten(), by.flatten(), valid.flatten()) if v
    )
    n, curve = len(pixels), []
    for step in range(20):
        rest = pixels[: n - math.floor(step * n / 20)]
        curve.append(sum(e for _, e in rest) / len(rest))
    return [value / curve[0] for value in curve]


def test_sparsification_matches_a_slow_loop(errors, valid, rng, spoiled):
    by = spoiled(torch.rand(3, 1, 5, 7, generator=rng), valid)
    curves = sparsification(errors, by, valid)
    for i in range(3):
        expected = slow_sparsification(errors[i], by[i], valid[i])
        assert curves[i].tolist() == pytest.approx(expected)
        oracle = slow_sparsification(errors[i], errors[i], valid[i])
        gap = [a - b for a, b in zip(expected, oracle)]
        area = sum((a + b) / 2 * 0.05 for a, b in itertools.pairwise(gap))
        assert ause(errors, by, valid)[i].item() == pytest.approx(area)


def test_the_error_itself_is_the_best_uncertainty_and_its_opposite_the_worst(errors, valid, rng):
    best = ause(errors, 3 * errors + 1, valid)
    middle = ause(errors, torch.rand(3, 1, 5, 7, generator=rng), valid)
    worst = ause(errors, -errors, valid)
    torch.testing.assert_close(best, torch.zeros(3).double())
    assert (best < middle).all() and (middle < worst).all()


def test_an_uncertainty_that_says_nothing_keeps_the_mean(errors, valid):
    curves = sparsification(errors, torch.zeros_like(errors), valid)
    torch.testing.assert_close(curves, torch.ones(3, 20).double())


def test_ties_are_the_expectation_over_their_order():
    error = torch.tensor([1.0, 2.0, 6.0, 7.0]).reshape(1, 1, 2, 2)
    by = torch.tensor([0.0, 1.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    curve = sparsification(error, by, torch.ones_like(by, dtype=torch.bool))[0] * 4
    # 4, 3, 2, 1 pixels kept: at 2, the second of them is 2 or 6 with even odds
    assert curve[[0, 5, 10, 15]].tolist() == pytest.approx([4, 3, (1 + 4) / 2, 1])


def test_perfect_and_empty_images():
    nothing, by = torch.zeros(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    everywhere = torch.ones_like(by, dtype=torch.bool)
    assert ause(nothing, by, everywhere).item() == 0
    assert ause(by, by, ~everywhere).isnan().all()


@pytest.mark.parametrize("levels", [0, 3])
def test_the_rank_correlation_is_scipys_with_and_without_ties(errors, valid, rng, spoiled, levels):
    noise = torch.rand(3, 1, 5, 7, generator=rng)
    by = torch.where(valid, errors, 0.0) + 0.5 * noise
    by = spoiled((by * levels).round() if levels else by, valid)
    found = rank_correlation(errors, by, valid)
    for i in range(3):
        inside = valid[i, 0]
        expected = spearmanr(errors[i, 0][inside].numpy(), by[i, 0][inside].numpy()).statistic
        assert 0.2 < expected < 0.99 and found[i].item() == pytest.approx(expected)


def test_the_rank_correlation_knows_order_alone_and_nothing_of_a_constant(errors, valid):
    assert rank_correlation(errors, errors.exp(), valid).tolist() == pytest.approx([1, 1, 1])
    assert rank_correlation(errors, -errors, valid).tolist() == pytest.approx([-1, -1, -1])
    assert rank_correlation(errors, torch.ones_like(errors), valid).isnan().all()
    assert rank_correlation(errors, errors, valid & False).isnan().all()


@pytest.mark.parametrize("m", [1, 2, 5])
def test_crps_matches_a_slow_loop(rng, valid, spoiled, m):
    both = valid.expand(-1, 2, -1, -1)
    x = torch.stack(
        [spoiled(torch.randn(3, 2, 5, 7, generator=rng), both).double() for _ in range(m)]
    )
    y = spoiled(torch.randn(3, 2, 5, 7, generator=rng), both).double()
    scores = crps(x, y, valid)
    for i in range(3):
        values = []
        for row, column in valid[i, 0].nonzero().tolist():
            for c in range(2):
                members, truth = x[:, i, c, row, column].tolist(), y[i, c, row, column].item()
                near = sum(abs(a - truth) for a in members) / m
                spread = sum(abs(a - b) for a in members for b in members) / m**2
                values.append(near - spread / 2)
        assert scores[i].item() == pytest.approx(sum(values) / len(values))


def test_crps_of_many_gaussian_members_is_the_closed_form(rng):
    """CRPS(N(0,1), 0) = 2 phi(0) - 1/sqrt(pi) (Gneiting & Raftery 2007, eq. 21 ff.)."""
    members = torch.randn(2000, 1, 1, 9, 9, generator=rng)
    score = crps(members, torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9, dtype=torch.bool))
    assert score.item() == pytest.approx(2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi), 0.02)


def test_random_gain_is_none_for_no_information_and_complements_the_sparsification_error(
    errors, valid
):
    torch.testing.assert_close(
        aurg(errors, torch.ones_like(errors), valid), torch.zeros(3).double()
    )
    by = -errors
    best = aurg(errors, errors, valid)
    torch.testing.assert_close(aurg(errors, by, valid) + ause(errors, by, valid), best)
    assert (best > 0).all() and (aurg(errors, by, valid) < 0).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_normal_intervals_cover_what_they_say(rng, level):
    truth = torch.randn(2, 1, 200, 200, generator=rng, dtype=torch.float64)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    mean, one = torch.zeros_like(truth), torch.ones_like(truth)
    covered = coverage(gaussian_interval(mean, one, level), truth, everywhere)
    torch.testing.assert_close(covered, torch.full((2,), level).double(), atol=0.01, rtol=0)
    low, high = gaussian_interval(mean, one, level)
    assert high.max().item() == pytest.approx(NormalDist().inv_cdf((1 + level) / 2))
    assert (low == -high).all()
    narrow = coverage(gaussian_interval(mean, one / 2, level), truth, everywhere)
    assert (narrow < covered - 0.1).all()


def test_coverage_counts_valid_pixels_and_both_ends(valid, spoiled):
    truth = spoiled(torch.ones(3, 1, 5, 7), valid)
    ends = torch.ones(3, 1, 5, 7), torch.full((3, 1, 5, 7), 2.0)
    assert coverage(ends, truth, valid).tolist() == [1, 1, 1]
    above = ends[0] + 0.1, ends[1]
    assert coverage(above, truth, valid).tolist() == [0, 0, 0]
    two = truth.repeat(1, 2, 1, 1)
    two[:, 1] = 5
    wide = tuple(end.repeat(1, 2, 1, 1) for end in ends)
    assert coverage(wide, two, valid).tolist() == [0.5] * 3  # one of two components


def test_probabilities_fall_into_bins_that_include_their_lower_end():
    stated = torch.tensor([0.0, 0.05, 0.1, 0.95, 1.0, 0.5]).reshape(1, 1, 2, 3)
    happened = torch.tensor([0, 1, 1, 1, 1, 1]).bool().reshape(1, 1, 2, 3)
    valid = torch.tensor([1, 1, 1, 1, 1, 0]).bool().reshape(1, 1, 2, 3)
    sums = probability_calibration(stated, happened, valid)[0]
    assert sums[0].tolist() == pytest.approx([2, 0.05, 1])
    assert sums[1].tolist() == pytest.approx([1, 0.1, 1])
    assert sums[9].tolist() == pytest.approx([2, 1.95, 2])
    assert sums[2:9].abs().sum() == 0


def test_intervals_of_an_image_without_truth_weigh_nothing(rng):
    mean, deviation, truth = torch.rand(3, 2, 2, 4, 4, generator=rng)
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[1] = False
    sums = interval_calibration(mean, deviation, truth, valid)
    assert sums[1].abs().sum() == 0 and sums[0, :, 0].tolist() == [1] * len(LEVELS)
    assert sums[0, :, 1].tolist() == pytest.approx(LEVELS)
    covered = coverage(gaussian_interval(mean, deviation, 0.5), truth, valid)
    assert sums[0, 4, 2] == covered[0]
    assert (sums[0, :, 2].diff() >= 0).all()  # wider intervals cover no less


def test_widened_members_keep_their_mean_and_scale_their_deviation(rng):
    members = torch.randn(5, 2, 1, 3, 3, generator=rng, dtype=torch.float64)
    (mean, deviation), (same, wider) = moments(members), moments(widened(members, 2.5))
    torch.testing.assert_close(mean, same)
    torch.testing.assert_close(2.5 * deviation, wider)
    assert half_width(0.9) == pytest.approx(1.6448536)


def test_members_that_agree_too_much_have_a_better_crps_once_widened(rng):
    """Of truth N(0, 1) and members N(0, 1/9): the CRPS of N(0, s) is least at s = 1."""
    truth = torch.randn(1, 1, 60, 60, generator=rng, dtype=torch.float64)
    members = torch.randn(20, 1, 1, 60, 60, generator=rng, dtype=torch.float64) / 3
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    scores = [crps(widened(members, a), truth, everywhere).item() for a in (1, 3, 9)]
    assert scores[1] < scores[0] - 0.05 and scores[1] < scores[2] - 0.05


def test_the_calibration_error_weighs_bins_of_all_images():
    sums = torch.zeros(2, 3, 3)
    sums[0, 0], sums[1, 0] = torch.tensor([3, 0.3, 0]), torch.tensor([1, 0.1, 2])
    sums[0, 2] = torch.tensor([4, 3.6, 1])
    assert calibration_error(sums) == pytest.approx((0.4 + 0.65) / 2)
    assert math.isnan(calibration_error(torch.zeros(2, 3, 3)))
