"""Stable Diffusion for inpainting: diffusers' own pipeline under an empty mask."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from conformance.publishing import drawing, imported, relative, whole
from conformance.rows import Differences, row
from stepsight.bench.peers.marigold import PARTS, SCHEDULER, write_folder

SIDES = (32, 64)
UNET: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": (2, 4),
    "norm_num_groups": 4,
}


def _folder(path: Path) -> Path:
    """A tiny pipeline with random weights."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    write_folder(path, UNET, (8, 8, 8, 8))
    UNet2DConditionModel(in_channels=9, sample_size=8, **UNET).save_pretrained(path / "unet")
    index = {"_class_name": "StableDiffusionInpaintPipeline", "_diffusers_version": "0.42.0"}
    index |= {"requires_safety_checker": False, **PARTS}
    (path / "model_index.json").write_text(json.dumps(index))
    leading = SCHEDULER | {"timestep_spacing": "leading", "rescale_betas_zero_snr": False}
    (path / "scheduler/scheduler_config.json").write_text(json.dumps(leading))
    return path


@row(
    "importer",
    "stable-diffusion-inpainting",
    oracle="diffusers 0.42 StableDiffusionInpaintPipeline",
    bar=1e-5,
    needs=("transformers",),
)
def inpainting() -> Differences:
    """Pictures painted again in five steps, where the mask hides nothing, at two sizes."""
    from diffusers import StableDiffusionInpaintPipeline  # type: ignore[attr-defined]
    from diffusers.utils import logging

    logging.disable_progress_bar()

    found: dict[str, float] = {}
    module = "diffusers.models.autoencoders.vae.randn_tensor"
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(Path(scratch))
        nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker"))
        peer: Any = StableDiffusionInpaintPipeline.from_pretrained(folder, **nothing)
        peer.set_progress_bar_config(disable=True)
        with imported(folder) as pipeline:
            prompt = pipeline.net.state_dict()["prompt"][:1]
            for side in SIDES:
                noise, drawn = torch.randn(2, 1, 4, side // 8, side // 8)
                image = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8)
                with drawing(noise, posterior=drawn):
                    answer = whole(pipeline.at(side), image, "image", nfe=5, class_id=0).values
                with mock.patch(module, mock.Mock(return_value=drawn)):
                    theirs = peer(
                        image=image.movedim(-1, 0)[None] / 255,
                        mask_image=torch.zeros(1, 1, side, side),
                        prompt_embeds=prompt,
                        latents=noise,
                        height=side,
                        width=side,
                        num_inference_steps=5,
                        guidance_scale=1.0,
                        output_type="pt",
                    ).images
                found[f"{side}x{side}"] = relative((answer + 1) / 2, theirs)
    return found
