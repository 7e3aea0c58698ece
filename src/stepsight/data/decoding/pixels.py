"""Decoded pictures of any depth, colours and orientation -> uint8 RGB, upright.

Cameras store a picture as the sensor lay and say in a tag how to turn it (EXIF 2.3, tag 0x0112).
Values 1 to 8: as it is, mirrored, turned by half, mirrored and turned by half, transposed, turned
right, transposed over the other diagonal, turned left.

Colour profiles are left aside, as other programs that train on pictures do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

ORIENTATION = 0x0112
TURNS = {  # orientation: axes exchanged, then rows reversed, then columns reversed
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
STRIP = 1 << 20  # pixels that are converted at a time
EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
)
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}

warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged tags


def orientation_of(image: Image.Image) -> int:
    """The orientation 1 to 8 that a picture's tag tells; 1 where there is none that can be read."""
    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever damaged tags lead to: a picture is not lost for them
        value = 1
    return value if isinstance(value, int) and value in TURNS else 1


def upright_view(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of stored pixels "... h w" that is upright."""
    exchanged, rows, columns = TURNS[orientation]
    pixels = pixels.swapaxes(-1, -2) if exchanged else pixels
    return pixels[..., :: -1 if rows else 1, :: -1 if columns else 1]


def rgb(image: Image.Image, orientation: int = 1) -> Tensor:
    """A decoded picture as uint8 RGB "3 h w", converted a few rows at a time, upright.

    16-bit grey (mode I;16) is rounded to 8 bits from its whole range; alpha is dropped. Raises
    `ValueError` for a mode that has no one meaning as colours: I and F, whose range nobody knows.
    """
    size = (image.width, image.height) if TURNS[orientation][0] else (image.height, image.width)
    pixels = np.empty((3, *size), np.uint8)
    exchanged, rows_reversed, columns_reversed = TURNS[orientation]
    turned = pixels[..., :: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
    stored = turned.swapaxes(-1, -2) if exchanged else turned  # a view of `pixels`, as on disk
    for rows, strip in strips(image):
        stored[:, rows] = _rgb_strip(strip)
    return torch.from_numpy(pixels)


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in strips of whole rows."""
    step = max(1, STRIP // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def eight_bits(values: np.ndarray) -> np.ndarray:
    """uint16 values of 0 to 65535, rounded to uint8 of 0 to 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _rgb_strip(strip: Image.Image) -> np.ndarray:
    """ "3 h w", or "h w" where it is grey."""
    if strip.mode.startswith("I;16"):
        return eight_bits(np.asarray(strip))
    if strip.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(strip, *profiles, outputMode="RGB")
        assert converted is not None
        strip = converted
    elif strip.mode not in EIGHT_BIT_MODES:
        raise ValueError(f"mode {strip.mode} has no one meaning as colours")
    elif strip.mode in ("YCbCr", "HSV", "RGBX"):
        strip = strip.convert("RGB")
    elif strip.mode != "RGB":  # by way of RGBA, because a palette may carry transparency
        strip = strip.convert(PREMULTIPLIED.get(strip.mode, strip.mode))
        strip = strip.convert("RGBA").convert("RGB")
    return np.asarray(strip).transpose(2, 0, 1)
