"""Folders with tiny random weights in the layouts that models are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

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
    with torch.no_grad():
        for parameter in network.parameters():  # none at its start, as norms and biases are
            parameter += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(path / "unet")
    write_vae(path / "vae")
    write_json(path / "model_index.json", {**PARTS, **index})
    write_json(path / "scheduler/scheduler_config.json", SCHEDULER)
    write_prompt(path)
    return path


def write_unet(path: Path, channels: int, **more: Any) -> UNet2DConditionModel:
    """A U-Net of so many input channels; `more` of its configuration."""
    unet = UNet2DConditionModel(in_channels=channels, out_channels=4, **UNET, **more)
    unet.save_pretrained(path)
    return unet.eval()


def write_vae(path: Path) -> AutoencoderKL:
    """A VAE that answers over the whole range, now and then beyond it."""
    vae = AutoencoderKL(**VAE)
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 3
        vae.encoder.conv_out.weight *= 20
    vae.save_pretrained(path)
    return vae.eval()


def write_prompt(path: Path) -> Tensor:
    """The embedding "1 2 d" of the empty prompt."""
    prompt = torch.randn(1, 2, WIDTH)
    save_file({"empty_text_embedding": prompt}, path / "empty_text_embedding.safetensors")
    return prompt


def write_json(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file; those that are None are taken out."""
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
