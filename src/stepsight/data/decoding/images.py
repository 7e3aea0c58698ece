"""Pictures on disk <-> tensors, without trusting the disk.

Native decoders are not safe on damaged bytes: some crash, most return wrong pixels without a word,
and Pillow reduces a 16-bit RGB PNG to 8 bits. So a PNG's chunks are checked first (`png`), then
Pillow decodes, and bit depth and mode must be what the caller asked for.
Every failure is a `DataFormatError` that names the file.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stepsight.data.decoding.disk import read_bytes, reading
from stepsight.data.decoding.memory import check_memory
from stepsight.data.decoding.png import SIGNATURE, PngHeader, check_png, decode_rgb16
from stepsight.errors import DataFormatError, UserError

FORMATS = ("PNG", "JPEG", "PPM", "WEBP")
MAX_PIXELS = 1 << 26  # 8192 x 8192, of any picture
MAX_SCANNED = 1 << 29  # pixels times scans of a JPEG: each scan goes over all of them
DAMAGE = (  # what Pillow raises for damaged data
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
STRIP = 1 << 20  # pixels that are converted at a time
BYTES = {"1": 1, "L": 1, "P": 1}  # of a pixel in Pillow's memory, by mode; of others 4
DEPTH_BYTES = 8  # of a pixel, while it is made metres
WEBP_BYTES = 16  # of a pixel in the memory of its decoder
START_OF_SCAN = b"\xff\xda"  # of a JPEG; cannot be within compressed data
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})


def read_image(path: str | Path, out: int = 3) -> Tensor:
    """An 8-bit picture as uint8 RGB "3 h w". Grey, palettes and CMYK are converted, alpha dropped.

    out: bytes that the caller makes of each pixel. Raises `DataFormatError` if the file is damaged,
    too large, or deeper than 8 bits.
    """
    image, bits = _decode(Path(path), out)
    if bits > 8 or image.mode not in EIGHT_BIT_MODES:
        raise _unexpected(path, image, bits, "an 8-bit picture")
    with _named_errors(Path(path)):
        return rgb(image)


def read_gray(path: str | Path, out: int = 3) -> Tensor:
    """A grey picture "1 h w" with the values it was written with: uint8, or uint16 for 16 bits.

    out: bytes that the caller makes of each pixel. Raises `DataFormatError` if the file is damaged,
    too large, coloured, or of another depth.
    """
    image, bits = _decode(Path(path), out)
    if image.mode == "L" and bits == 8:
        return torch.from_numpy(np.array(image))[None]
    if image.mode.startswith("I") and bits == 16:
        return torch.from_numpy(np.array(image).astype(np.uint16, copy=False))[None]
    raise _unexpected(path, image, bits, "8- or 16-bit grey")


def read_depth_png(path: str | Path) -> Tensor:
    """A 16-bit grey PNG, the usual container of depth, as uint16 "1 h w".

    Raises `DataFormatError` if the file is damaged, too large, or not 16-bit grey.
    """
    values = read_gray(path, out=DEPTH_BYTES)
    if values.dtype != torch.uint16:
        raise DataFormatError(f"{path}: 8-bit grey, where depth needs 16-bit grey.")
    return values


def read_mask(path: str | Path) -> Tensor:
    """An 8-bit grey mask as bool "1 h w": above the middle (127) is inside.

    Raises `DataFormatError` if the file is damaged, too large, or not 8-bit grey.
    """
    values = read_gray(path)
    if values.dtype != torch.uint8:
        raise DataFormatError(f"{path}: 16-bit grey, where a mask needs 8-bit grey.")
    return values > 127


def read_labels(path: str | Path) -> Tensor:
    """Label values uint8 "1 h w": 8-bit grey as written, or the indices of a palette.

    Raises `DataFormatError` if the file is damaged, too large, or neither of the two.
    """
    image, bits = _decode(Path(path), 2)
    if (image.mode, bits) != ("L", 8) and image.mode != "P":
        raise _unexpected(path, image, bits, "8-bit grey or a palette")
    return torch.from_numpy(np.array(image))[None]


def read_ids(path: str | Path) -> Tensor:
    """Numbers int64 "1 h w" spread over an 8-bit RGB PNG: R + 256 G + 65536 B (COCO panoptic).

    Raises `DataFormatError` if the file is damaged, too large, or not 8-bit RGB.
    """
    image, bits = _decode(Path(path), 8)
    if image.mode != "RGB" or bits != 8:
        raise _unexpected(path, image, bits, "8-bit RGB")
    ids = np.empty((image.height, image.width), np.int64)
    for rows, strip in _strips(image):
        ids[rows] = np.asarray(strip).astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
    return torch.from_numpy(ids)[None]


def read_rgb16(path: str | Path) -> Tensor:
    """A 16-bit RGB PNG, the container of KITTI's flow, as uint16 "3 h w" with its true values.

    Raises `DataFormatError` if the file is damaged, too large, or anything but 16-bit RGB.
    """
    path = Path(path)
    data = read_bytes(path)
    if not data.startswith(SIGNATURE):
        raise DataFormatError(f"{path}: not a PNG file, it starts with {data[:12]!r}.")
    header = check_png(data, path)
    check_pixels(header.width, header.height, path)
    return decode_rgb16(data, header, path)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width from the header alone. Raises `DataFormatError` if there is none."""
    path = Path(path)
    with reading(path), _named_errors(path), Image.open(path, formats=FORMATS) as image:
        return image.height, image.width


def write_image(path: str | Path, image: Tensor) -> None:
    """Write uint8 RGB "3 h w" in the format of the path's suffix."""
    assert image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3, image.shape
    _save(path, image.permute(1, 2, 0))


def write_png16(path: str | Path, values: Tensor) -> None:
    """Write uint16 "1 h w" as a 16-bit grey PNG."""
    assert values.dtype == torch.uint16 and values.ndim == 3 and values.shape[0] == 1, values.shape
    _save(path, values[0])


def _save(path: str | Path, pixels: Tensor) -> None:
    try:
        Image.fromarray(pixels.cpu().contiguous().numpy()).save(path)
    except (OSError, ValueError) as error:  # ValueError: no format goes by this suffix
        raise UserError(f"{path}: cannot be written ({error}).") from error


def rgb(image: Image.Image) -> Tensor:
    """A decoded 8-bit picture as uint8 RGB "3 h w", converted a few rows at a time."""
    pixels = np.empty((3, image.height, image.width), np.uint8)
    for rows, strip in _strips(image):
        if strip.mode != "RGB":  # by way of RGBA, because a palette may carry transparency
            strip = strip.convert("RGBA").convert("RGB")
        pixels[:, rows] = np.asarray(strip).transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in strips of whole rows."""
    step = max(1, STRIP // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _decode(path: Path, out: int) -> tuple[Image.Image, int]:
    """The decoded picture, and the bits per channel in the file (in memory, unless a PNG).

    out: bytes per pixel that the caller makes of it.
    """
    data = read_bytes(path)
    png: PngHeader | None = check_png(data, path) if data.startswith(SIGNATURE) else None
    with _named_errors(path):
        image = open_bounded(data, out, path)
        image.load()
    return image, png.bits if png else 8 if image.mode in EIGHT_BIT_MODES else 32


def open_bounded(data: bytes, out: int, where: object) -> Image.Image:
    """A picture that is not decoded yet, if decoding it and making `out` bytes of each of its
    pixels stays within the limits; Pillow's errors are the caller's."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    check_pixels(image.width, image.height, where)
    kept = 2 if image.mode.startswith("I;16") else BYTES.get(image.mode, 4)  # in Pillow's memory
    while_decoding = kept
    if image.format == "WEBP":
        while_decoding += WEBP_BYTES
    elif image.format == "JPEG" and (scans := data.count(START_OF_SCAN)) > 1:
        while_decoding += 2 * len(image.getbands())  # all coefficients, until the last scan
        if scans * math.prod(image.size) > MAX_SCANNED:
            raise DataFormatError(f"{where}: {scans} scans of a JPEG are too many for its size.")
    size = f"{image.width} x {image.height} pixels"
    needed = max(while_decoding, kept + out) * math.prod(image.size) + len(data)
    check_memory(needed, size, where)
    return image


def check_pixels(width: int, height: int, where: object) -> None:
    if width * height > MAX_PIXELS:
        raise DataFormatError(f"{where}: {width} x {height} pixels are too many.")


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Pillow's errors as ours, with the file's name."""
    try:
        yield
    except UnidentifiedImageError as error:
        known, start = ", ".join(FORMATS), read_bytes(path)[:12]
        reason = f"not a readable {known} file, it starts with {start!r}"
        raise DataFormatError(f"{path}: {reason}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataFormatError(f"{path}: too many pixels ({error}).") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except DAMAGE as error:
        raise DataFormatError(f"{path}: damaged ({error}).") from error


def _unexpected(path: str | Path, image: Image.Image, bits: int, wanted: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: {bits}-bit picture of mode {image.mode}, where {wanted} is expected."
    )
