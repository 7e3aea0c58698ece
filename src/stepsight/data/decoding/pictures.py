"""A sample's picture, from a picture's file or out of a file of arrays (`room.npz#rgb`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.disk import part_of
from stepsight.data.decoding.images import orientation, read_image
from stepsight.data.decoding.pixels import eight_bits
from stepsight.data.decoding.truth import read_array
from stepsight.errors import DataFormatError

FILES = (".npy", ".npz", ".h5", ".hdf5", ".mat")  # suffixes of files of arrays


def read_picture(path: Path) -> Tensor:
    """A picture as uint8 RGB "3 h w", upright.

    Arrays are "h w", "h w 3" or "3 h w" of 8 or 16 bits, or floats from 0 to 1. Raises as
    `read_image` does, and `DataFormatError` for other arrays.
    """
    if not _is_array(path):
        return read_image(path)
    values = read_array(path, "image")
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[-1] not in (1, 3):
        values = np.moveaxis(values, 0, -1)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or not values.size:
        raise DataFormatError(f"{path}: {values.dtype} of shape {values.shape} is no picture.")
    pixels = np.broadcast_to(_bytes(values, path), (*values.shape[:2], 3))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def turn_of(path: Path) -> int:
    """The EXIF orientation 1 to 8 of a picture; of arrays 1."""
    return 1 if _is_array(path) else orientation(path)


def _is_array(path: Path) -> bool:
    return part_of(path)[0].suffix.lower() in FILES


def _bytes(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return eight_bits(values)
    if values.dtype.kind == "f" and 0 <= values.min() and values.max() <= 1:
        return (values * 255).round().astype(np.uint8)
    raise DataFormatError(
        f"{path}: a picture of {values.dtype} from {values.min():g} to {values.max():g}; it needs "
        "8 or 16 bits, or floats from 0 to 1."
    )
