"""Folders in diffusers' layout: which pipeline they hold, and what is in its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepsight.conversion.foreign import Weights, read_tensors
from stepsight.errors import DataFormatError, UserError

DEPTH, NORMALS, GENERATOR = "marigold-depth", "marigold-normals", "stable-diffusion"
INDEX = "model_index.json"
CONFIG = "config.json"

# `_class_name` of a pipeline -> what it is, and the input channels of its U-Net: the noisy latent,
# and for Marigold that of the image before it. MarigoldPipeline is the name before diffusers 0.28.
PIPELINES = {
    "MarigoldDepthPipeline": (DEPTH, 8),
    "MarigoldPipeline": (DEPTH, 8),
    "MarigoldNormalsPipeline": (NORMALS, 8),
    "StableDiffusionPipeline": (GENERATOR, 4),
}
PARTS = {"unet": CONFIG, "vae": CONFIG, "scheduler": "scheduler_config.json"}


def find_folder(path: Path) -> str | None:
    """What a folder holds: "marigold-depth", "marigold-normals" or "stable-diffusion".

    None if it is no pipeline of diffusers. Raises UserError for one that is not supported or lacks
    a part.
    """
    if not (path / INDEX).is_file():
        return None
    name = read_json(path / INDEX).get("_class_name")
    if name not in PIPELINES:
        raise UserError(f"{path} holds a {name}. Supported are {', '.join(PIPELINES)}.")
    missing = [
        f"{part}/{file}" for part, file in PARTS.items() if not (path / part / file).exists()
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}. Copy the whole folder.")
    kind, expected = PIPELINES[name]
    channels = read_json(path / "unet" / CONFIG).get("in_channels", 4)  # diffusers' default
    if channels != expected:
        raise UserError(
            f"{path}: the U-Net of a {name} has {expected} input channels, this one {channels}. "
            f"Inpainting, upscaling and other variants are not supported."
        )
    return kind


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataFormatError if there is none."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{file}: cannot be read as JSON ({error}).") from None
    if not isinstance(config, dict):
        raise DataFormatError(f"{file}: must hold an object, not a {type(config).__name__}.")
    return config


def read_part(folder: Path, *names: str) -> Weights:
    """The weights in the first of the files `names` that `folder` has, in float32.

    Raises UserError if it has none of them.
    """
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no {' or '.join(names)}. Copy the whole folder.")
    weights = read_tensors(file)
    weights.tensors = {name: value.float() for name, value in weights.tensors.items()}
    return weights
