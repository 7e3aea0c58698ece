"""Gaussian noise drawn row by row, so that no row depends on its neighbours in the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.execution.noise import Stream, normal

LEVEL = 1 << 32  # what a level of coarse noise adds to the last word of an address


def training_noise(
    settings: DiffusionSettings, stream: Stream, rows: Tensor, shape: Sequence[int], t: Tensor
) -> Tensor:
    """Unit-variance noise "b c h w" for rows of `shape` "c h w" at times `t` "b", on the device of
    their addresses `rows` "b w" (`execution.noise`).

    With `multires_noise` it is correlated over space, as the multi-resolution ("pyramid") noise of
    Marigold (Ke et al. 2024): levels of 1/2, 1/4, ... of the size, upsampled, weigh
    strength^level. Annealed, the strength falls in proportion to t, to white noise at t = 0.
    Every entry is exactly N(0, 1): each level and the sum are divided by their known deviation,
    where the published code divides by the measured one.
    """
    noise = normal(stream, rows, shape)
    if settings.multires_noise == 0:
        return noise
    strength = noise.new_full((len(rows), 1, 1, 1), settings.multires_noise)
    if settings.multires_annealed:
        strength = strength * t.to(strength).reshape(-1, 1, 1, 1)
    variance = torch.ones_like(strength)
    channels, height, width = shape
    for level in range(1, min(height, width).bit_length()):
        apart = torch.cat([rows[:, :-1], rows[:, -1:] + level * LEVEL], dim=1)
        coarse = normal(stream, apart, (channels, height >> level, width >> level))
        noise = noise + strength**level * _upsample(coarse, height, width)
        variance = variance + strength ** (2 * level)
    return noise / variance.sqrt()


def begun(settings: DiffusionSettings, noise: Tensor, cond: Tensor) -> Tensor:
    """What paths lead from "b c h w": `noise` of that shape, or the latent of the picture, the
    leading channels of `cond` "b k h w", noised as settings.picture says (Gui et al. 2024,
    section 3)."""
    alpha = settings.picture
    if not alpha:
        return noise
    return alpha * cond[:, : noise.shape[1]] + math.sqrt(1 - alpha**2) * noise


def _upsample(coarse: Tensor, height: int, width: int) -> Tensor:
    """Bilinear upsampling of white noise "b c h' w'", rescaled to unit variance everywhere."""
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    down, across = (_variance(coarse, *sides) for sides in ((2, height), (3, width)))
    return smooth / (down[:, None] * across).sqrt()


def _variance(coarse: Tensor, dim: int, fine: int) -> Tensor:
    """Variance "fine" of linearly upsampled unit white noise: the sum of its squared weights."""
    every = torch.eye(coarse.shape[dim], device=coarse.device)[:, None]
    weights = F.interpolate(every, size=fine, mode="linear")
    return weights.square().sum(dim=(0, 1))
