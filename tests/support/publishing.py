"""Folders with tiny random weights in the layouts that models are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

WIDTH = 16  # of the prompt
UNET: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": (1, 2),
    "use_linear_projection": True,
    "norm_num_groups": 4,
}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
PARTS = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def publish(path: Path, index: dict[str, Any], unet: dict[str, Any]) -> Path:
    """A folder with an empty prompt, all of whose weights are random; `unet` and `index` are
    further entries of the U-Net's configuration and of model_index.json."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(**{**UNET, **unet})
    vae = AutoencoderKL(**VAE)
    with torch.no_grad():
        for parameter in network.parameters():  # none at its start, as norms and biases are
            parameter += 0.1 * torch.randn_like(parameter)
        vae.decoder.conv_out.weight *= 3  # answers over the whole range, now and then beyond it
        vae.encoder.conv_out.weight *= 20
    network.save_pretrained(path / "unet")
    vae.save_pretrained(path / "vae")
    (path / "model_index.json").write_text(json.dumps({**PARTS, **index}))
    (path / "scheduler").mkdir()
    (path / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    prompt = {"empty_text_embedding": torch.randn(1, 2, WIDTH)}
    save_file(prompt, path / "empty_text_embedding.safetensors")
    return path


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file; those that are None are taken out."""
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
