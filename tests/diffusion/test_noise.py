"""Noise: a function of the row's key alone, of exactly unit variance."""

from __future__ import annotations

import pytest
import torch

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.noise import training_noise
from stepsight.execution.noise import normal

SHAPE = (2, 24, 40)  # not a power of two
MULTIRES = DiffusionSettings(multires_noise=0.9)
STEADY = DiffusionSettings(multires_noise=0.9, multires_annealed=False)


def rows(settings: DiffusionSettings, numbers, times, shape=SHAPE):
    addresses = torch.tensor([[number, 0] for number in numbers])
    return training_noise(settings, ("noise", 0), addresses, shape, torch.tensor(times))


@pytest.mark.parametrize("settings", [DiffusionSettings(), MULTIRES, STEADY])
def test_training_noise_is_bitwise_the_same_in_any_batch(settings: DiffusionSettings):
    together = rows(settings, [3, 4, 5, 6], [0.1, 0.9, 0.5, 1.0])
    assert torch.equal(together[1:2], rows(settings, [4], [0.9]))
    assert torch.equal(together[[3, 0]], rows(settings, [6, 3], [1.0, 0.1]))


def test_without_strength_the_noise_is_white():
    white = normal(("noise", 0), torch.tensor([[3, 0]]), SHAPE)
    assert torch.equal(rows(DiffusionSettings(), [3], [0.5]), white)


def test_annealing_ends_in_white_noise():
    assert torch.equal(rows(MULTIRES, [3], [0.0]), rows(DiffusionSettings(), [3], [0.0]))
    assert torch.equal(rows(MULTIRES, [3], [1.0]), rows(STEADY, [3], [1.0]))
    assert not torch.equal(rows(MULTIRES, [3], [0.5]), rows(STEADY, [3], [0.5]))


def test_annealing_scales_the_strength_by_the_time():
    weaker = DiffusionSettings(multires_noise=0.9 * 0.5, multires_annealed=False)
    torch.testing.assert_close(rows(MULTIRES, [3], [0.5]), rows(weaker, [3], [0.5]))


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_multires_noise_has_unit_variance_at_every_pixel(t: float):
    shape = (1, 6, 10)
    noise = rows(MULTIRES, range(6000), [t] * 6000, shape)
    assert noise.mean(dim=0).abs().max() < 6 / 6000**0.5
    # variance of a variance of n normals: 2 / n
    assert (noise.var(dim=0) - 1).abs().max() < 6 * (2 / 6000) ** 0.5


def test_multires_noise_is_correlated_over_space():
    def neighbours(settings: DiffusionSettings) -> float:
        noise = rows(settings, range(50), [1.0] * 50)
        return (noise[..., 1:] * noise[..., :-1]).mean().item()

    assert abs(neighbours(DiffusionSettings())) < 0.02
    assert neighbours(MULTIRES) > 0.4
