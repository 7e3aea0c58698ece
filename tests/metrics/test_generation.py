"""The energy score of generated pictures: its formula, and that the true distribution wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.metrics.generation import generation_rows, moments
from stepsight.seeding import generator


def pictures(count: int, what: str, brightness: float = 0.4, texture: float = 0.1) -> Tensor:
    """Pictures of a world where only the brightness of a picture varies, "n 3 16 16"."""
    draw = generator("pictures", what)
    level = brightness * torch.randn(count, 3, 1, 1, generator=draw)
    return level + texture * torch.randn(count, 3, 16, 16, generator=draw)


def test_moments_are_means_and_deviations_by_cell():
    x = torch.randn(2, 3, 8, 12, generator=generator("moments"))
    cells = x.numpy().reshape(2, 3, 4, 2, 4, 3)
    expected = np.concatenate([f(cells, axis=(3, 5)) for f in (np.mean, np.std)], axis=1)
    np.testing.assert_allclose(moments(x), expected.reshape(2, 96), atol=1e-6)


def test_moments_hardly_depend_on_the_grid():
    smooth = torch.linspace(-1, 1, 16)[None, None, :, None].expand(1, 3, 16, 16).contiguous()
    larger = torch.nn.functional.interpolate(smooth, scale_factor=4, mode="bilinear")
    assert (moments(smooth) - moments(larger)).abs().max() < 0.02
    assert moments(torch.rand(1, 3, 1, 5)).isfinite().all()


def test_the_energy_score_by_hand():
    """Constant pictures at a and b against c: the deviations agree, the means are 48 of 96."""
    a, b, c = (torch.full((1, 3, 8, 8), level) for level in (0.1, 0.5, -0.2))
    found = generation_rows(torch.stack([a, b]), c)
    expected = (0.3 + 0.7) / 2 - 0.4 / 4
    assert found["energy"].item() == pytest.approx(expected * math.sqrt(0.5), abs=1e-6)
    assert found["n"].tolist() == [1]
    alone = generation_rows(a[None], c)["energy"].item()
    assert alone == pytest.approx(0.3 * math.sqrt(0.5), abs=1e-6)


def test_only_the_real_picture_itself_costs_nothing():
    real = pictures(3, "real")
    exact = generation_rows(torch.stack([real, real]), real)["energy"]
    torch.testing.assert_close(exact, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert (generation_rows(torch.stack([real, -real]), real)["energy"] > 0).all()


def test_true_samples_beat_every_other_distribution_and_the_mean_picture():
    """The rule is proper: too little or too much spread, or texture, costs; so does no spread."""
    real = pictures(200, "real")

    def energy(members: Tensor) -> float:
        return generation_rows(members, real)["energy"].mean().item()

    def sampled(**changes: float) -> float:
        drawn = pictures(200 * 16, "drawn", **changes)
        return energy(drawn.reshape(16, 200, 3, 16, 16))

    true = sampled()
    others = [{"brightness": 0.1}, {"brightness": 0.8}, {"texture": 0.0}, {"texture": 0.4}]
    assert all(true < sampled(**other) for other in others)
    assert true < energy(torch.zeros(1, 200, 3, 16, 16))
    single = pictures(200, "one")[None]
    assert energy(single) > energy(torch.zeros(1, 200, 3, 16, 16))  # what one member cannot show
