"""Stable Diffusion's VAE, of random weights, in bfloat16 at 512 x 512 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from gpu.latents import LEVELS
from gpu.row import Row
from gpu.timing import device_of, seconds
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE

PUBLISHED: dict[str, Any] = LEVELS | {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
FLOORS = {"encode": 1.41, "decode": 3.18}  # ms a picture: 1.12 and 2.52 TFLOP at 790 TFLOP/s


def run(size: str) -> Iterator[Row]:
    device, tiny = device_of(size), size == "tiny"
    side, pictures = (64, 2) if tiny else (512, 10)
    with torch.device(device):
        module = AutoencoderKL(latent_channels=4, **(LEVELS if tiny else PUBLISHED))
    vae = VAE(module, CodecSettings(precision="bf16")).to(device)
    x = torch.rand(pictures, 3, side, side, device=device)
    with torch.inference_mode():
        z = vae.encode(x)
        ways = {"encode": lambda: vae.encode(x), "decode": lambda: vae.decode(z, 3)}
        for name, work in ways.items():
            spent = 1e3 * seconds(work, device) / pictures
            floor = "" if tiny else f"floor {FLOORS[name]:.2f} ms"
            yield Row(f"{name}, {side} px, {pictures} at a time", spent, "ms a picture", note=floor)
