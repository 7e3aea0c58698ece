"""Weights that others wrote: read without running any code, and compared with what is expected.

A published checkpoint is a safetensors file or a torch pickle. Pickles are opened with
`weights_only`, which knows tensors and plain containers and refuses the rest. Allowed besides are
`argparse.Namespace`, which DiT's train.py stores next to its weights, and what rebuilds NumPy's
arrays of real numbers, of which DepthFM stores one.
"""

from __future__ import annotations

import argparse
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stepsight.errors import DataFormatError, UserError

NESTED = ("ema", "model", "state_dict")  # where training scripts keep weights, as preferred
PICKLED = (b"PK\x03\x04", b"\x80")  # how torch.save's files begin: now, and before torch 1.6
WANTED = f"A state dict maps names to tensors, also under the key {' or '.join(NESTED)}."
LISTED = 12  # at most so many faults in a message
# NumPy's function that makes an empty array to be filled, under its names before and since 2.0.
REBUILD = np.empty(0).__reduce__()[0]
ALLOWED = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *((REBUILD, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64")),
]


@dataclass
class Weights:
    """A state dict, the file it is from, notes on how it was read, and what the file holds beside
    it."""

    tensors: dict[str, Tensor]
    source: Path
    notes: Sequence[str] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)


def read_tensors(path: Path) -> Weights:
    """The weights in a safetensors file or a torch pickle; no code in it is run.

    Of a training script's file these are the averaged weights, where it has some. Raises
    DataFormatError saying what the file is instead, and what to do.
    """
    _check_file(path)
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    tensors, notes = _state_dict(loaded, path)
    nested = notes and isinstance(loaded, Mapping)
    beside = {key: value for key, value in loaded.items() if key not in NESTED} if nested else {}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
        notes.append("the prefix 'module.' of every name was dropped")
    return Weights(tensors, path, notes, beside)


def compare(weights: Weights, expected: Mapping[str, Sequence[int]]) -> None:
    """Raise UserError, listing names, unless the weights have exactly these names and shapes."""
    tensors = weights.tensors
    wrong = [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{name} is unexpected" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != torch.Size(shape)
    ]
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise UserError(
            f"{weights.source} does not have the published layout: {'; '.join(wrong[:LISTED])}"
            f"{more}. Nothing was written."
        )


# What torch raises for bytes that are cut off or changed.
DAMAGE = (
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    OSError,
    AssertionError,
    struct.error,
)


def _check_file(path: Path) -> None:
    """Refuse what is no file of weights by how it begins."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name the .pt or .safetensors file in it.")
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DataFormatError(f"{path} is empty. Download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise DataFormatError(
            f"{path} is a Git LFS pointer, not the weights. Run git lfs pull where it is from."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataFormatError(
            f"{path} is an HTML page: the download failed. Open it in a browser to see why."
        )
    if path.suffix != ".safetensors" and not head.startswith(PICKLED):
        raise DataFormatError(
            f"{path} begins with {head[:12]!r}: neither safetensors (.safetensors) nor a file of "
            f"torch.save. Download it again."
        )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataFormatError(f"{path}: {_damaged(error)}") from None


def _load_pickle(path: Path) -> Any:
    """What torch.save wrote. Tensors stay on disk until they are used, where the file allows it."""
    try:
        with torch.serialization.safe_globals(ALLOWED):
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except torch.serialization.pickle.UnpicklingError as error:  # pyright: ignore
        code = re.search(r"(?:GLOBAL |allowlisted .*got <class ')([\w.]+)", str(error))
        if code is None:
            raise DataFormatError(f"{path}: {_damaged(error)}") from None
        raise DataFormatError(
            f"{path} was refused: it would run code ({code[1]}). Nothing of it was run. Ask "
            f"its author for a file of tensors alone, best as .safetensors."
        ) from None
    except DAMAGE as error:
        raise DataFormatError(f"{path}: {_damaged(error)}") from None


def _damaged(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"truncated or damaged ({reason}). Compare its size with the original; download again."


def _state_dict(loaded: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a loaded file by name, and which of several sets of them were taken."""
    notes = []
    if isinstance(loaded, Mapping):
        for key in NESTED:
            if isinstance(loaded.get(key), Mapping):
                notes.append(
                    f"the weights under '{key}' were taken, of {', '.join(map(str, loaded))}"
                )
                loaded = loaded[key]
                break
    if not isinstance(loaded, Mapping) or not loaded:
        kind = "empty dict" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise DataFormatError(f"{path} holds a {kind}, not a state dict. {WANTED}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DataFormatError(
                f"{path} is not a state dict: {name!r} is a {type(value).__name__}. {WANTED}"
            )
    return dict(loaded), notes
