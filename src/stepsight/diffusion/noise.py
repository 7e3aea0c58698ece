"""Gaussian noise drawn row by row, so that no row depends on its neighbours in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.seeding import generator


def row_noise(shape: Sequence[int], keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    """White noise "b ..." on the CPU: one row of `shape` per key, a function of that key alone."""
    return _draw(shape, [generator(*key) for key in keys])


def training_noise(
    settings: DiffusionSettings, shape: Sequence[int], t: Tensor, generators: Sequence[Generator]
) -> Tensor:
    """Unit-variance noise "b c h w" on the CPU for rows of `shape` "c h w" at times `t` "b".

    With `multires_noise` it is correlated over space, as the multi-resolution ("pyramid") noise of
    Marigold (Ke et al. 2024): levels of 1/2, 1/4, ... of the size, upsampled, weigh
    strength^level. Annealed, the strength falls in proportion to t, to white noise at t = 0.
    Every entry is exactly N(0, 1): each level and the sum are divided by their known deviation,
    where the published code divides by the measured one.
    """
    noise = _draw(shape, generators)
    if settings.multires_noise == 0:
        return noise
    strength = torch.full((len(generators), 1, 1, 1), settings.multires_noise)
    if settings.multires_annealed:
        strength = strength * t.to(strength).reshape(-1, 1, 1, 1)
    variance = torch.ones_like(strength)
    channels, height, width = shape
    for level in range(1, min(height, width).bit_length()):
        coarse = _draw((channels, height >> level, width >> level), generators)
        noise = noise + strength**level * _upsample(coarse, height, width)
        variance = variance + strength ** (2 * level)
    return noise / variance.sqrt()


def _draw(shape: Sequence[int], generators: Sequence[Generator]) -> Tensor:
    return torch.stack([torch.randn(*shape, generator=source) for source in generators])


def _upsample(coarse: Tensor, height: int, width: int) -> Tensor:
    """Bilinear upsampling of white noise "b c h' w'", rescaled to unit variance everywhere."""
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    variance = _variance(coarse.shape[2], height)[:, None] * _variance(coarse.shape[3], width)
    return smooth / variance.sqrt()


def _variance(coarse: int, fine: int) -> Tensor:
    """Variance "fine" of linearly upsampled unit white noise: the sum of its squared weights."""
    weights = F.interpolate(torch.eye(coarse)[:, None], size=fine, mode="linear")
    return weights.square().sum(dim=(0, 1))
