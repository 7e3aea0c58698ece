"""Masked sums, means and medians against numpy on the picked pixels."""

import numpy as np
import torch

from stepsight.metrics import masked


def test_matches_numpy_on_the_valid_pixels(depths, valid):
    x = depths[0]
    for i in range(3):
        picked = x[i][valid[i]].double().numpy()
        assert masked.count(valid)[i] == len(picked)
        np.testing.assert_allclose(masked.total(x, valid)[i], picked.sum())
        np.testing.assert_allclose(masked.mean(x, valid)[i], picked.mean())
        np.testing.assert_allclose(masked.median(x, valid)[i], np.median(picked))


def test_median_of_every_number_of_pixels(rng):
    x = torch.rand(6, 5, generator=rng)
    valid = torch.arange(5)[None] < torch.arange(6)[:, None]  # 0 .. 5 valid pixels
    expected = [np.median(x[n, :n].double().numpy()) for n in range(1, 6)]
    np.testing.assert_allclose(masked.median(x, valid)[1:], expected)
    assert masked.median(x, valid)[0].isnan()


def test_an_image_without_pixels_has_no_mean():
    x, nothing = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    assert masked.count(nothing).tolist() == [0, 0]
    assert masked.total(x, nothing).tolist() == [0, 0]
    assert masked.mean(x, nothing).isnan().all()


def test_sums_are_carried_in_float64():
    x = torch.full((1, 1, 1024, 1024), 0.1)
    everywhere = torch.ones_like(x, dtype=torch.bool)
    exact = 1024**2 * float(np.float32(0.1))
    assert abs(masked.total(x, everywhere).item() / exact - 1) < 1e-12
