"""Stable Diffusion under a stored prompt: diffusers' own pipeline."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from conformance.families.inpainting import UNET
from conformance.publishing import drawing, imported, relative, whole
from conformance.rows import Differences, row
from stepsight.bench.peers.marigold import PARTS, SCHEDULER, write_folder

SIDE, STEPS = 64, 5
COMMON = SCHEDULER | {"timestep_spacing": "leading", "rescale_betas_zero_snr": False}
SCHEDULERS: dict[str, dict[str, Any]] = {  # version 1 names PNDM, version 2 both
    "PNDMScheduler": {
        name: COMMON[name]
        for name in ("beta_start", "beta_end", "beta_schedule", "set_alpha_to_one", "steps_offset")
    }
    | {"skip_prk_steps": True, "prediction_type": "epsilon"},
    "DDIMScheduler": {name: value for name, value in COMMON.items() if name != "_class_name"},
}


def _folder(path: Path, scheduler: str) -> Path:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    write_folder(path, UNET, (8, 8, 8, 8))
    unet = UNet2DConditionModel(in_channels=4, sample_size=SIDE // 8, **UNET)
    unet.save_pretrained(path / "unet")
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    index |= PARTS | {"scheduler": ["diffusers", scheduler]}
    (path / "model_index.json").write_text(json.dumps(index))
    written = {"_class_name": scheduler, **SCHEDULERS[scheduler]}
    (path / "scheduler/scheduler_config.json").write_text(json.dumps(written))
    return path


@row(
    "importer",
    "stable-diffusion",
    oracle="diffusers 0.42 StableDiffusionPipeline",
    bar=1e-5,
    needs=("transformers",),
)
def generated() -> Differences:
    """Pictures generated in five steps by each scheduler that its folders name."""
    from diffusers import StableDiffusionPipeline  # type: ignore[attr-defined]
    from diffusers.utils import logging

    logging.disable_progress_bar()
    found: dict[str, float] = {}
    for scheduler in SCHEDULERS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = _folder(Path(scratch), scheduler)
            nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker"))
            peer: Any = StableDiffusionPipeline.from_pretrained(folder, **nothing)
            peer.set_progress_bar_config(disable=True)
            noise = torch.randn(1, 4, SIDE // 8, SIDE // 8)
            blank = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
            with imported(folder) as pipeline, drawing(noise):
                calls = STEPS + (scheduler == "PNDMScheduler")  # which takes its second step twice
                ours = whole(pipeline, blank, "image", nfe=calls, members=1, class_id=0).values
                prompt = pipeline.net.state_dict()["prompt"][:1]
            theirs = peer(
                prompt_embeds=prompt,
                latents=noise,
                height=SIDE,
                width=SIDE,
                num_inference_steps=STEPS,
                guidance_scale=1.0,
                output_type="pt",
            ).images
            found[scheduler] = relative((ours + 1) / 2, theirs)
    return found
