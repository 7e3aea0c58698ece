"""RANSAC: outliers without a vote, one answer an image whatever the batch, and the falling line."""

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.metrics.alignment.ransac import consensus, ransac_fit


@pytest.fixture
def corrupted(rng):
    """A line with noise, a third of its pixels far off, and holes; keys of two images."""
    pred = torch.rand(2, 1, 30, 40, generator=rng, dtype=torch.float64)
    truth = 2.0 * pred + 1.0 + 0.01 * torch.randn(pred.shape, generator=rng)
    far = torch.rand(pred.shape, generator=rng) < 0.3
    truth = torch.where(far, truth + 8, truth)
    valid = torch.rand(pred.shape, generator=rng) < 0.8
    return pred, torch.where(valid, truth, torch.nan), valid, ["a", "b"]


def test_outliers_do_not_move_the_line(corrupted):
    scale, shift = ransac_fit(*corrupted)
    torch.testing.assert_close(scale, torch.full((2,), 2.0).double(), atol=0.2, rtol=0)
    torch.testing.assert_close(shift, torch.full((2,), 1.0).double(), atol=0.2, rtol=0)
    moved = affine_fit(*corrupted[:3])[1]
    assert (moved - 1 > 1.5).all()  # which is what they do to least squares


def test_the_fit_depends_on_the_key_and_not_on_neighbours_or_the_global_generator(corrupted):
    pred, truth, valid, keys = corrupted
    torch.manual_seed(0)
    both = torch.stack(ransac_fit(pred, truth, valid, keys))
    torch.manual_seed(1)
    alone = [torch.stack(ransac_fit(pred[i:][:1], truth[i:][:1], valid[i:][:1], keys[i:][:1]))
             for i in range(2)]  # fmt: skip
    assert torch.equal(both, torch.cat(alone, dim=1))


def test_the_result_is_least_squares_on_pixels_within_the_threshold(corrupted):
    """A fixed point test: refitting to the pixels near the best of all tried lines."""
    pred, truth, valid, keys = (x[:1] for x in corrupted)
    scale, shift = ransac_fit(pred, truth, valid, keys)
    p, g = pred[valid], truth[valid]
    spread = (g - g.quantile(0.5)).abs().quantile(0.5)
    near = (scale * p + shift - g).abs() <= spread
    assert near.double().mean() > 0.6  # the two thirds that are on the line
    again = affine_fit(p[near][None], g[near][None], torch.ones_like(near[near])[None])
    torch.testing.assert_close(again[0], scale, atol=0.05, rtol=0)


def test_a_falling_line_becomes_the_factor_of_the_means(rng):
    pred = 1 + torch.rand(1, 1, 9, 9, generator=rng, dtype=torch.float64)
    truth = 10 - 3 * pred
    valid = torch.ones_like(pred, dtype=torch.bool)
    scale, shift = ransac_fit(pred, truth, valid, ["k"])
    torch.testing.assert_close(scale, (truth.mean() / pred.mean())[None])
    assert shift.item() == 0


def test_degenerate_images():
    flat = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    truth = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    everywhere = torch.ones_like(flat, dtype=torch.bool)
    assert [float(x) for x in ransac_fit(flat, truth, everywhere, ["k"])] == [4, 0]  # of the means
    one = torch.zeros_like(everywhere)
    one[0, 0, 1, 1] = True
    for nothing_to_fit in (~everywhere, one, everywhere & truth.isnan()):
        fitted = ransac_fit(flat, truth, nothing_to_fit, ["k"])
        assert [float(x) for x in fitted] == [1, 0]


@pytest.mark.parametrize("outliers, trials", [(0, 1), (150, 4), (450, 13)])
def test_tries_stop_once_a_pair_without_outliers_has_been_drawn_with_99_percent(outliers, trials):
    """log(1 - 0.99) / log(1 - w^2), of points on a line with a share w."""
    p = torch.linspace(0, 1, 1000, dtype=torch.float64)
    g = 3 * p + 1
    g[:outliers] += 50 + torch.arange(outliers) ** 2
    asked = RandomState(0)
    near = consensus(p, g, asked)
    assert near[outliers:].all() and not near[:outliers].any()
    draws = RandomState(0)
    drawn = 0
    while draws.get_state()[2] != asked.get_state()[2] and drawn < 100:
        draws.randint(1000)
        drawn += 1
    assert drawn == 2 * trials


def test_few_points_are_drawn_by_a_permutation():
    p = torch.linspace(0, 1, 40, dtype=torch.float64)
    asked, draws = RandomState(3), RandomState(3)
    assert consensus(p, 2 * p + 1, asked).all()
    draws.permutation(40)
    assert np.array_equal(asked.get_state()[1], draws.get_state()[1])
