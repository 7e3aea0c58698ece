"""Pictures on disk <-> tensors, without trusting the disk.

Native decoders are not safe on damaged bytes: some crash, most return wrong pixels without a word,
and Pillow turns a 16-bit RGB PNG into an 8-bit one. So a PNG's chunks are checked against their CRC
here first (PNG specification, section 5: length, type, data, CRC-32 of type and data), then Pillow
decodes, and the bit depth and mode it found must be the ones the caller asked for. Every failure is
a `DataFormatError` that names the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stepsight.errors import DataFormatError, UserError

FORMATS = ("PNG", "JPEG", "PPM", "WEBP")
MAX_PIXELS = 1 << 26  # 8192 x 8192: a small file can claim to hold far more than memory does
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})


def read_image(path: str | Path) -> Tensor:
    """An 8-bit picture as uint8 RGB "3 h w". Grey, palettes and CMYK are converted, alpha dropped.

    Raises `DataFormatError` if the file is damaged, too large, or deeper than 8 bits.
    """
    image, bits = _decode(Path(path))
    if bits > 8 or image.mode not in EIGHT_BIT_MODES:
        raise _unexpected(path, image, bits, "an 8-bit picture")
    if image.mode != "RGB":  # by way of RGBA, because a palette may carry transparency
        image = image.convert("RGBA").convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def read_gray(path: str | Path) -> Tensor:
    """A grey picture "1 h w" with the values it was written with: uint8, or uint16 for 16 bits.

    Raises `DataFormatError` if the file is damaged, too large, coloured, or of another depth.
    """
    image, bits = _decode(Path(path))
    if image.mode == "L" and bits == 8:
        return torch.from_numpy(np.array(image))[None]
    if image.mode.startswith("I") and bits == 16:
        return torch.from_numpy(np.array(image).astype(np.uint16))[None]
    raise _unexpected(path, image, bits, "8- or 16-bit grey")


def read_depth_png(path: str | Path) -> Tensor:
    """A 16-bit grey PNG, the usual container of depth, as uint16 "1 h w".

    Raises `DataFormatError` if the file is damaged, too large, or not 16-bit grey.
    """
    values = read_gray(path)
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


def _decode(path: Path) -> tuple[Image.Image, int]:
    """The decoded picture, and the bits of a channel in the file (in memory, unless a PNG)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    png_bits = _check_png(data, path) if data.startswith(PNG_SIGNATURE) else None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataFormatError(f"{path}: {image.width} x {image.height} pixels are too many.")
        image.load()
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        reason = f"not a readable {known} file, it starts with {data[:12]!r}"
        raise DataFormatError(f"{path}: {reason}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataFormatError(f"{path}: too many pixels ({error}).") from error
    except (OSError, SyntaxError, ValueError) as error:  # all three are Pillow's for damaged data
        raise DataFormatError(f"{path}: damaged ({error}).") from error
    return image, png_bits or (8 if image.mode in EIGHT_BIT_MODES else 32)


def _check_png(data: bytes, path: Path) -> int:
    """Walk the chunks, hold every CRC, and return the bit depth that the header declares."""
    view, position, kind = memoryview(data), len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DataFormatError(f"{path}: damaged PNG, cut off after {len(data)} bytes.")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise DataFormatError(f"{path}: damaged PNG, chunk {kind!r} runs past the end.")
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise DataFormatError(f"{path}: damaged PNG, wrong CRC in chunk {kind!r}.")
        position = end + 4
    if data[12:16] != b"IHDR" or position < 33:
        raise DataFormatError(f"{path}: damaged PNG, the header chunk does not come first.")
    return data[24]


def _unexpected(path: str | Path, image: Image.Image, bits: int, wanted: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: {bits}-bit picture of mode {image.mode}, where {wanted} is expected."
    )
