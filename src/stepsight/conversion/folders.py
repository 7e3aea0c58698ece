"""Folders in diffusers' layout: their parts, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stepsight.conversion.foreign import Weights, read_tensors
from stepsight.errors import DataFormatError, UserError

INDEX = "model_index.json"
WRITTEN = "stepsight-family.json"  # what `convert export` says of a folder besides its layout
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
PARTS = {"unet": CONFIG, "vae": CONFIG, "scheduler": SCHEDULER}


class Found(NamedTuple):
    """A family, and what was assumed to tell it."""

    name: str
    assumed: tuple[str, ...] = ()


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataFormatError if there is none."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{file}: cannot be read as JSON ({error}).") from None
    if not isinstance(config, dict):
        raise DataFormatError(f"{file}: must hold an object, not a {type(config).__name__}.")
    return config


def refuse_unknown(config: Mapping[str, Any], known: Collection[str], where: object) -> None:
    """Raise UserError for a key that is none of `known`. Those that begin with "_" only say who
    wrote a file."""
    for key, value in config.items():
        if key not in known and not key.startswith("_"):
            raise UserError(
                f"{where}: {key} is {value!r}, which means nothing here. Remove it if it changes "
                f"nothing."
            )


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
