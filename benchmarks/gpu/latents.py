"""Runs on cached latents: depth on scenes, coded once by a small VAE of random weights."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from steps import NEVER, profiled

from stepsight.config import RunConfig, from_dict

LEVELS: dict[str, Any] = {
    "block_out_channels": (8, 8, 16, 16),  # 8 x 8 pixels a cell
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
}
SAMPLES = 64  # that are coded, and drawn again and again


def small_vae() -> AutoencoderKL:
    """4 latent channels at an eighth of the size, as Stable Diffusion's."""
    torch.manual_seed(0)
    return AutoencoderKL(latent_channels=4, **LEVELS)


def config_of(model: str, side: int, batch: int, folder: Path, **training: Any) -> RunConfig:
    """Training on noised truth alone, as published recipes do; latents are kept in `folder`."""
    vae = folder / "vae"
    if not vae.exists():
        small_vae().save_pretrained(vae)
    rows = {"start": 0.0, "rollout": 0.0, "denoise": 1.0}
    settings = {"rows": rows, "loss": "squared", "precision": "bf16", "optimizer": "adamw"}
    settings |= {"batch": batch, "images": 1000 * batch, "processes": 1, "micro_batch": str(batch)}
    settings |= NEVER | {"latents": str(folder / "latents")} | training
    scenes = {"size": [side, side], "count": SAMPLES, "eval_count": 2}
    return from_dict(
        {
            "model": {"name": model},
            "codec": {"path": str(vae)},
            "tasks": {"depth": {}},
            "data": {"scenes": scenes},
            "training": settings,
        }
    )


def figures(config: RunConfig, size: str) -> dict[str, Any]:
    """What a profile of a few steps says; see `training.profile.run`."""
    gc.collect()  # a network before this one is not to count with its memory,
    torch.compiler.reset()  # nor with what may be compiled
    if size == "tiny":
        return profiled(config, steps=1, warm_up=1, traced=1)
    return profiled(config, steps=15, warm_up=6, traced=0)
