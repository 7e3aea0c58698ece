"""Least absolute errors: the minimum itself, and which pixels are sampled."""

import itertools

import pytest
import torch

from stepsight.metrics.alignment.absolute import CELLS, absolute_fit, sampled
from stepsight.metrics.alignment.align import align


def everywhere(x):
    return torch.ones_like(x, dtype=torch.bool)


def loss(scale, shift, p, g):
    return ((scale * p + shift - g).abs() / g).sum().item()


@pytest.fixture
def grids(rng):
    """A line with noise and outliers, as large as the grid, so that every pixel counts once."""
    pred = 1 + torch.rand(1, 1, CELLS, CELLS, generator=rng, dtype=torch.float64)
    truth = 2 * pred + 1 + 0.1 * torch.rand(pred.shape, generator=rng)
    far = torch.rand(pred.shape, generator=rng) < 0.1
    return pred, torch.where(far, 6 * truth, truth)


def test_no_line_through_two_points_is_better(rng):
    pred = torch.rand(1, 1, CELLS, CELLS, generator=rng, dtype=torch.float64)
    truth = 1 + torch.rand(pred.shape, generator=rng, dtype=torch.float64)
    valid = torch.zeros_like(pred, dtype=torch.bool)
    valid.view(-1)[torch.randperm(CELLS**2, generator=rng)[:25]] = True
    scale, shift = absolute_fit(pred, truth, valid, shifted=True)
    p, g = pred[valid], truth[valid]
    lines = []
    for a, b in itertools.combinations(range(25), 2):
        slope = (g[b] - g[a]) / (p[b] - p[a])
        lines.append(loss(slope, g[a] - slope * p[a], p, g))
    assert loss(scale, shift, p, g) == pytest.approx(min(lines), rel=1e-12)


@pytest.mark.parametrize("shifted", [True, False])
def test_the_fit_is_least(grids, shifted):
    pred, truth = grids
    scale, shift = absolute_fit(pred, truth, everywhere(pred), shifted=shifted)
    least = loss(scale, shift, pred, truth)
    for by, to in [(1e-4, 0), (-1e-4, 0), (0, 1e-4), (0, -1e-4)]:
        if shifted or not to:
            assert loss(scale + by, shift + to, pred, truth) > least
    assert scale.item() == pytest.approx(2 if shifted else 2.7, abs=0.1)
    assert shifted or shift.item() == 0


def test_points_of_few_values_many_of_them_on_the_line():
    pred = (torch.arange(CELLS**2).double() % 5).view(1, 1, CELLS, CELLS)
    truth = 3 * pred + 1
    truth[..., :9] += 2  # a seventh of the pixels
    scale, shift = absolute_fit(pred, truth, everywhere(pred), shifted=True)
    assert (scale.item(), shift.item()) == pytest.approx((3, 1))


def test_an_image_without_valid_pixels_has_no_fit():
    empty = torch.zeros(2, 1, 4, 4)
    fits = absolute_fit(empty, empty, torch.zeros_like(empty, dtype=torch.bool), shifted=True)
    assert all(fit.isnan().all() for fit in fits)


def test_the_valid_pixel_nearest_to_the_centre_of_a_cell_is_sampled():
    valid = torch.ones(3 * CELLS, 3 * CELLS, dtype=torch.bool)
    rows, columns = sampled(valid) // (3 * CELLS), sampled(valid) % (3 * CELLS)
    assert len(rows) == CELLS**2 and (rows % 3 == 1).all() and (columns % 3 == 1).all()
    valid[:3, :3] = False
    valid[2, 0] = valid[0, 1] = True  # at a distance of 1.4 and of 1 pixels from the centre
    assert sampled(valid)[0] == 1  # row 0, column 1
    valid[:3, :3] = False
    assert len(sampled(valid)) == CELLS**2 - 1


def test_in_a_small_map_a_pixel_counts_for_several_cells():
    assert sampled(torch.ones(1, 1, dtype=torch.bool)).tolist() == [0] * CELLS**2
    places = sampled(torch.ones(32, 64, dtype=torch.bool))
    assert torch.bincount(places).tolist() == [2] * (32 * 64)


def test_rows_below_those_of_the_fit_are_aligned_with_it(grids):
    pred, truth = grids
    both = torch.cat([pred, 3 * pred], dim=2), torch.cat([truth, truth], dim=2)
    alone = align(pred, truth, everywhere(pred), "affine_l1")
    tall = align(*both, valid=everywhere(both[0]), rule="affine_l1", fit_rows=CELLS)
    torch.testing.assert_close(tall[:, :, :CELLS], alone)
    scale, shift = absolute_fit(pred, truth, everywhere(pred), shifted=True)
    torch.testing.assert_close(tall[:, :, CELLS:], 3 * pred * scale + shift)
