"""Tiny Marigold folders with random weights in the published layout, and diffusers' own answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import SCHEDULER, WIDTH, write_json, write_prompt, write_vae
from safetensors.torch import load_file
from torch import Tensor

from stepsight.bench.peers.marigold import PARTS, marigold

SIZE = (64, 96)  # a multiple of the strides of U-Net (4) and VAE (8)
UNET: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": (4, 8, 8),
    "use_linear_projection": True,
    "norm_num_groups": 8,
}
# scheduler/scheduler_config.json: v1.0 leaves the spacing to diffusers, which takes "leading"
V1_0 = {key: value for key, value in SCHEDULER.items() if key != "timestep_spacing"}
SCHEDULERS = {
    "v1.0": V1_0,
    "v1.1": V1_0 | {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
}


def _write_folder(path: Path, name: str, scheduler: str, **index: Any) -> Path:
    """A pipeline of class `name`; `index` are further entries of its model_index.json."""
    torch.manual_seed(0)
    channels = 4 if name.startswith("StableDiffusion") else 8
    unet = UNet2DConditionModel(in_channels=channels, out_channels=4, **UNET)
    unet.save_pretrained(path / "unet")
    write_vae(path / "vae")
    write_json(path / "model_index.json", {"_class_name": name, **PARTS, **index})
    write_json(path / "scheduler/scheduler_config.json", SCHEDULERS[scheduler])
    write_prompt(path)
    return path


@pytest.fixture
def diffusers_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny pipeline: (class name, "v1.0" or "v1.1", entries of model_index.json)."""

    def write(name: str = "MarigoldDepthPipeline", scheduler: str = "v1.0", **index: Any) -> Path:
        return _write_folder(tmp_path / "published", name, scheduler, **index)

    return write


@pytest.fixture(scope="session")
def marigold_classes() -> dict[str, Any]:
    """diffusers' pipelines."""
    return {task: marigold(task) for task in ("depth", "normals")}


@pytest.fixture
def published_members(marigold_classes: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Members "e c h w" of diffusers' pipeline in `folder` before it merges them: (folder, task,
    image "1 3 h w" in [0, 1], initial latents "e 4 h w", steps)."""

    def members(folder: Path, task: str, image: Tensor, latents: Tensor, steps: int) -> Tensor:
        kind = marigold_classes[task]
        found: list[Tensor] = []

        def merge(several: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, None]:
            found.append(several.clone())
            return several[:1], None

        monkeypatch.setattr(kind, f"ensemble_{task}", staticmethod(merge))
        pipe = kind.from_pretrained(folder, text_encoder=None, tokenizer=None)
        stored = load_file(folder / "empty_text_embedding.safetensors")
        pipe.empty_text_embedding = stored["empty_text_embedding"]
        pipe.set_progress_bar_config(disable=True)
        pipe(
            image,
            num_inference_steps=steps,
            ensemble_size=len(latents),
            processing_resolution=0,
            match_input_resolution=False,
            latents=latents,
            output_type="pt",
        )
        return found[0]

    return members
