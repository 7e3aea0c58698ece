"""Autoencoders of diffusers, small and untrained, for the tests of the VAE codec."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from stepsight.models.config import CodecSettings

PLAIN = CodecSettings()
LEVELS = dict(
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(8, 8, 16),
    norm_num_groups=4,
)


def make(kind: str) -> AutoencoderKL | AutoencoderTiny:
    torch.manual_seed(0)
    if kind == "tiny":
        blocks = dict(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
        return AutoencoderTiny(
            **blocks, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4
        ).eval()
    if kind == "kl16":
        return AutoencoderKL(
            **LEVELS, latent_channels=16, scaling_factor=0.36, shift_factor=0.12
        ).eval()
    return AutoencoderKL(**LEVELS, sample_size=32).eval()


KINDS = {"kl4": (4, 4), "kl16": (16, 4), "tiny": (4, 8)}  # latent channels, pixels per cell


def image(channels: int, side: int = 16, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(channels)
    return torch.rand(batch, channels, side, side, generator=draw) * 2 - 1


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(a, b, rtol=0, atol=tolerance)
