"""diffusers' Marigold, on folders of random weights in the published layout."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

PROMPT = "empty_text_embedding"
# As Marigold v1.1 has it.
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def marigold(task: str = "depth") -> Any:
    """diffusers' pipeline for depth or normals, whose module names two types of transformers that
    it does not use here: without that package they are stood in for, while it is imported."""
    import diffusers  # noqa: F401  (looks for transformers itself, before there is a stand-in)

    name = "transformers"
    lacking = importlib.util.find_spec(name) is None
    if lacking:
        stub = types.SimpleNamespace(CLIPTextModel=object, CLIPTokenizer=object)
        sys.modules[name] = stub  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipelines = "diffusers.pipelines.marigold"
            module = importlib.import_module(f"{pipelines}.pipeline_marigold_{task}")
    finally:
        if lacking:
            del sys.modules[name]
    return getattr(module, f"Marigold{task.title()}Pipeline")


def write_folder(path: Path, unet: dict[str, Any], vae: tuple[int, ...]) -> Path:
    """A depth pipeline with random weights. unet: arguments of its class; vae: channels a level."""
    network = UNet2DConditionModel(in_channels=8, out_channels=4, **unet)
    network.save_pretrained(path / "unet")
    coder = autoencoder(vae)
    with torch.no_grad():  # latents and answers over the whole range
        coder.decoder.conv_out.weight *= 3
        coder.encoder.conv_out.weight *= 20
    coder.save_pretrained(path / "vae")
    index = {"_class_name": "MarigoldDepthPipeline", **PARTS, "prediction_type": "depth"}
    index |= {"scale_invariant": True, "shift_invariant": True, "default_denoising_steps": 4}
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "scheduler").mkdir()
    (path / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    prompt = torch.randn(1, 2, unet["cross_attention_dim"])
    save_file({PROMPT: prompt}, path / f"{PROMPT}.safetensors")
    return path


def autoencoder(channels: tuple[int, ...]) -> AutoencoderKL:
    """A VAE as Stable Diffusion has it, of so many channels a level and 1/8 of the size."""
    shape: dict[str, Any] = {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
    }
    return AutoencoderKL(**shape, layers_per_block=2, norm_num_groups=8)


def opened(path: Path, device: str) -> Any:
    """The pipeline in `path`, silent."""
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pipe = marigold().from_pretrained(path, text_encoder=None, tokenizer=None).to(device)
    pipe.empty_text_embedding = load_file(path / f"{PROMPT}.safetensors")[PROMPT].to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Unmerged:
    """The pipeline `pipe` without its merge: the members themselves, "e 1 h w" in [0, 1]."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.dtype = pipe, pipe.dtype

    def __call__(self, image: Tensor, **options: Any) -> Tensor:
        found: list[Tensor] = []

        def keep(maps: Tensor, *arguments: Any, **named: Any) -> tuple[Tensor, None]:
            found.append(maps)
            return maps[:1], None

        self.pipe.ensemble_depth = keep
        try:
            self.pipe(image, **options)
        finally:
            del self.pipe.ensemble_depth
        return found[0]
