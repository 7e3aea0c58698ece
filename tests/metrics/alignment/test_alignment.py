"""Closed-form fits: against lstsq, on exact affine maps, and at the degenerate ends."""

import numpy as np
import pytest
import torch

from stepsight.errors import UserError
from stepsight.metrics import masked
from stepsight.metrics.alignment.align import affine_fit, align


def test_affine_fit_is_least_squares(depths, valid):
    pred, truth = depths
    scale, shift = affine_fit(pred, truth, valid)
    for i in range(3):
        p, g = (x[i][valid[i]].double().numpy() for x in (pred, truth))
        expected = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), g, rcond=None)[0]
        np.testing.assert_allclose([scale[i], shift[i]], expected, rtol=1e-9)


@pytest.mark.parametrize("scale,shift", [(2.5, -3.0), (-0.5, 20.0)])
def test_affine_fit_recovers_an_affine_map(depths, valid, scale, shift):
    pred = depths[0].double()
    found = affine_fit(pred, scale * pred + shift, valid)
    torch.testing.assert_close(found[0], torch.full((3,), scale, dtype=torch.float64))
    torch.testing.assert_close(found[1], torch.full((3,), shift, dtype=torch.float64))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.1, 3.7, 3e7])
def test_a_constant_prediction_becomes_the_mean(rng, constant):
    """Also where the mean of equal numbers is off by a rounding and leaves a variance above 0."""
    truth = torch.rand(2, 1, 25, 40, generator=rng, dtype=torch.float64)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    scale, shift = affine_fit(torch.full_like(truth, constant), truth, everywhere)
    assert scale.tolist() == [0, 0]
    torch.testing.assert_close(shift, masked.mean(truth, everywhere))


def test_small_variation_on_a_large_offset_is_not_constant(rng):
    truth = torch.rand(1, 1, 9, 9, generator=rng, dtype=torch.float64)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    scale, _ = affine_fit(1000 + 1e-4 * truth, truth, everywhere)
    torch.testing.assert_close(scale, torch.tensor([1e4], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "rule,space,distort",
    [
        ("none", "depth", lambda d: d),
        ("median", "depth", lambda d: 3 * d),
        ("median", "disparity", lambda d: 3 * d),
        ("median", "log", lambda d: 3 * d),
        ("scale", "depth", lambda d: 3 * d),
        ("scale", "disparity", lambda d: 3 * d),
        ("scale", "log", lambda d: 3 * d),
        ("affine", "depth", lambda d: 3 * d + 1),
        ("affine", "disparity", lambda d: 1 / (0.2 / d + 0.01)),
        ("affine", "log", lambda d: 3 * d**0.5),
    ],
)
def test_each_rule_undoes_the_distortion_of_its_space(depths, valid, rule, space, distort):
    truth = depths[1].double()
    aligned = align(distort(truth), truth, valid, rule, space)
    torch.testing.assert_close(aligned[valid], truth[valid])


def test_one_factor_fits_in_closed_form(depths, valid):
    pred, truth = depths
    by_scale, by_median = (align(pred, truth, valid, r, "depth") for r in ("scale", "median"))
    for i in range(3):
        p, g = (x[i][valid[i]].double() for x in (pred, truth))
        torch.testing.assert_close(by_scale[i][valid[i]], p * ((p * g).sum() / (p * p).sum()))
        ratio = np.median(g.numpy()) / np.median(p.numpy())
        torch.testing.assert_close(by_median[i][valid[i]], p * ratio)


def test_fitted_disparity_is_floored():
    depth = torch.tensor([1.0, 2.0, 4.0, 400.0]).reshape(1, 1, 2, 2)
    truth = torch.tensor([1.0, 2.5, 50.0, 60.0]).reshape(1, 1, 2, 2)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    assert (affine_fit(1 / depth, 1 / truth, everywhere)[1] < 0).all()  # so the last one is < 0
    assert align(depth, truth, everywhere, "affine", "disparity")[0, 0, 1, 1] == 1000


@pytest.mark.parametrize("space", ["log", "disparity"])
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_non_positive_depth_is_refused_only_where_it_counts(space, bad):
    pred = torch.tensor([[[[1.0, 2.0, bad]]]])
    truth = torch.tensor([[[[1.0, 3.0, 4.0]]]])
    valid = torch.tensor([[[[True, True, False]]]])
    aligned = align(pred, truth, valid, "affine", space)
    torch.testing.assert_close(aligned[valid], truth[valid].double())
    with pytest.raises(UserError, match="not positive at 1 valid pixels.*depth-affine"):
        align(pred, truth, torch.ones_like(valid), "affine", space)
