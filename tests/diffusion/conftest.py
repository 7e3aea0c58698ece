"""What the tests of the diffusion process share: Gaussian data, whose best denoiser is known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from stepsight.schedule import Schedule


@dataclass
class Gaussian:
    """Data x0 ~ N(mean, std^2): everything about its diffusion has a closed form."""

    schedule: Schedule
    mean: float = 0.3
    std: float = 0.7

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of x_t."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return alpha * self.mean, (alpha**2 * self.std**2 + sigma**2).sqrt()

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x_t = x]."""
        alpha = self.schedule.alpha(t)
        centre, deviation = self.marginal(t)
        return self.mean + alpha * self.std**2 / deviation**2 * (x - centre)

    def at(self, quantile: Tensor, t: Tensor) -> Tensor:
        """The point of x_t's distribution that the probability-flow ODE carries along."""
        centre, deviation = self.marginal(t)
        return centre + deviation * quantile


@pytest.fixture
def gaussian() -> type[Gaussian]:
    return Gaussian


@pytest.fixture(scope="session")
def diffusers():
    """The peer; its import warns about what is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers")


@pytest.fixture
def curved():
    """A denoiser with no symmetry to hide behind, depending on x and on the level alone."""

    def denoise(x: Tensor, level: float) -> Tensor:
        return torch.tanh(1.3 * x + level) + 0.1 * x.roll(1, dims=-1)

    return denoise
