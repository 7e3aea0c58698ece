"""What a file holds, before anybody knows what it means: its form and its stored values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stepsight.data.decoding.disk import read_bytes
from stepsight.data.decoding.images import DAMAGE, open_bounded, read_rgb16
from stepsight.data.decoding.png import SIGNATURE, check_png
from stepsight.data.decoding.truth import DEPTH, FLOW
from stepsight.data.fields import PICTURES
from stepsight.errors import DataFormatError

Look = Literal["colour", "alpha", "grey", "palette", "bits", "grey16", "rgb16", "array"]
MODES: dict[str, Look] = {"1": "bits", "L": "grey", "P": "palette", "RGBA": "alpha", "LA": "alpha"}
ARRAYS = {**FLOW, **DEPTH}  # suffixes of arrays of numbers
LARGEST = 1 << 20  # values of a file that are looked at


class Form(NamedTuple):
    """How a file keeps its pixels."""

    look: Look
    channels: int
    type: str  # NumPy's name of the stored type
    size: tuple[int, int]  # height, width


def form_of(path: Path) -> Form:
    """The form of a file. Raises `UserError` or `DataFormatError` where it cannot be opened."""
    values = stored(path)
    height, width, channels = values.shape
    if path.suffix.lower() in PICTURES:
        look = _look(path)
    else:
        look = "array"
    return Form(look, channels, values.dtype.name, (height, width))


def stored(path: Path) -> np.ndarray:
    """The values of a file as they are stored, "h w c"; palettes as their indices."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        if _look(path) == "rgb16":
            return read_rgb16(path).permute(1, 2, 0).numpy()
        try:
            image = open_bounded(read_bytes(path), 4, path)
            values = np.asarray(image)
        except DAMAGE as error:
            raise DataFormatError(f"{path}: damaged ({error}).") from error
        return values if values.ndim == 3 else values[..., None]
    if suffix in ARRAYS:
        return ARRAYS[suffix](path).permute(1, 2, 0).numpy()
    raise DataFormatError(f"{path}: of a format that is not read.")


def _look(path: Path) -> Look:
    data = read_bytes(path)
    if data.startswith(SIGNATURE):
        header = check_png(data, path)
        if header.bits == 16:
            return "grey16" if header.colour == 0 else "rgb16"
    try:
        mode = open_bounded(data, 4, path).mode
    except DAMAGE as error:
        raise DataFormatError(f"{path}: not a readable picture ({error}).") from error
    return "grey16" if mode.startswith("I") else MODES.get(mode, "colour")
