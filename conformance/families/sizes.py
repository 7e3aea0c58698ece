"""Marigold beside diffusers' own pipelines, run here, on pictures of ten sizes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from conformance.publishing import apart, drawing, imported, members_of
from conformance.rows import Differences, relative, row
from stepsight.bench.peers.marigold import PROMPT, marigold, write_folder

UNET: dict[str, Any] = {
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": (2, 4, 4, 4),
    "use_linear_projection": True,
    "norm_num_groups": 4,
}
# heights and widths, most of them of benchmarks or of what people have
SIZES = (
    (352, 1216),
    (375, 1242),
    (1024, 1024),
    (241, 319),
    (1080, 1920),
    (480, 640),
    (768, 1024),
    (504, 756),
    (97, 33),
    (640, 480),
)
RESOLUTION = 192  # of the longer side: the network is the same at any
STEPS = 2
SCHEDULERS: dict[str, dict[str, Any]] = {
    "leading": {"timestep_spacing": "leading", "rescale_betas_zero_snr": False},
    "trailing from zero SNR": {},
    "LCM": {
        "_class_name": "LCMScheduler",
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
        "original_inference_steps": 50,
        "timestep_scaling": 10.0,
    },
}


def _folder(path: Path, task: str, scheduler: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    write_folder(path, UNET, (8, 8, 8, 8))
    file = path / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | scheduler))
    index = json.loads((path / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler.get("_class_name", "DDIMScheduler")]
    index["default_processing_resolution"] = RESOLUTION
    if task == "normals":
        del index["scale_invariant"], index["shift_invariant"]
        index |= {"_class_name": "MarigoldNormalsPipeline", "prediction_type": "normals"}
        index["use_full_z_range"] = True
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def _peer(path: Path, task: str) -> Any:
    from safetensors.torch import load_file

    pipe = marigold(task).from_pretrained(path, text_encoder=None, tokenizer=None)
    pipe.empty_text_embedding = load_file(path / f"{PROMPT}.safetensors")[PROMPT]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _compared(task: str, scheduler: dict[str, Any]) -> Differences:
    found = {}
    with tempfile.TemporaryDirectory() as name:
        path = _folder(Path(name), task, scheduler)
        pipe = _peer(path, task)
        with imported(path) as pipeline:
            for height, width in SIZES:
                draw = torch.Generator().manual_seed(height)
                image = torch.randint(256, (height, width, 3), generator=draw, dtype=torch.uint8)
                given = pipeline.working_size(task, (height, width))
                noise = torch.randn(1, 4, *(-(-side // 8) for side in given), generator=draw)
                torch.manual_seed(7)
                theirs = pipe(
                    Image.fromarray(image.numpy()),
                    num_inference_steps=STEPS,
                    latents=noise,
                    match_input_resolution=False,
                    output_type="pt",
                ).prediction
                torch.manual_seed(7)
                fresh = torch.randn(1, STEPS, *noise.shape[1:])  # as LCM draws it, step by step
                with drawing(noise, fresh):
                    ours = members_of(pipeline, image, task, nfe=STEPS, members=1)
                found[f"{height}x{width}"] = _apart(ours.clamp(-1, 1), theirs, task)
    return found


def _apart(ours: Tensor, theirs: Tensor, task: str) -> float:
    if task == "depth":
        return relative((ours + 1) / 2, theirs)
    return apart(torch.nn.functional.normalize(ours, dim=1)[0], theirs[0])


@row("profile", "marigold-depth, leading", oracle="diffusers MarigoldDepthPipeline", bar=1e-5)
def depth_leading() -> Differences:
    """One member at ten sizes."""
    return _compared("depth", SCHEDULERS["leading"])


@row("profile", "marigold-depth, trailing", oracle="diffusers MarigoldDepthPipeline", bar=1e-5)
def depth_trailing() -> Differences:
    """One member at ten sizes."""
    return _compared("depth", SCHEDULERS["trailing from zero SNR"])


@row("profile", "marigold-depth, LCM", oracle="diffusers MarigoldDepthPipeline", bar=1e-5)
def depth_lcm() -> Differences:
    """One member at ten sizes."""
    return _compared("depth", SCHEDULERS["LCM"])


@row("profile", "marigold-normals", oracle="diffusers MarigoldNormalsPipeline", bar=1e-5)
def normals() -> Differences:
    """One member at ten sizes."""
    return _compared("normals", SCHEDULERS["trailing from zero SNR"])
