"""Pictures on disk <-> tensors, without trusting the disk.

Native decoders are not safe on damaged bytes: some crash, most return wrong pixels without a word,
and Pillow reduces 16-bit colours to 8 bits. So a PNG's chunks are checked first (`png`), then
Pillow decodes, and bit depth and mode must be what the caller asked for. Of several frames or pages
the first is read. Every failure is a `DataFormatError` that names the file.

A picture comes upright, as its orientation tag says. Published data sets whose truth lies on the
stored grid ask for that (`upright=False`).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stepsight.data.decoding.arrays import TIFF_MAGICS, read_tiff
from stepsight.data.decoding.disk import extra, read_bytes, reading
from stepsight.data.decoding.memory import check_memory
from stepsight.data.decoding.pixels import (
    EIGHT_BIT_MODES,
    eight_bits,
    orientation_of,
    rgb,
    strips,
    upright_view,
)
from stepsight.data.decoding.png import (
    COLOURED,
    SIGNATURE,
    PngHeader,
    check_png,
    decode_deep,
    decode_rgb16,
)
from stepsight.errors import DataFormatError, UserError

FORMATS = ("PNG", "JPEG", "PPM", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
PICTURES = tuple(
    ".jpg .jpeg .png .ppm .webp .bmp .gif .tif .tiff .avif .heic .heif .pgm".split()
)  # suffixes of pictures
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
    RuntimeError,
    struct.error,
    zlib.error,
)
BYTES = {"1": 1, "L": 1, "P": 1}  # of a pixel in Pillow's memory, by mode; of others 4
DEPTH_BYTES = 8  # of a pixel, while it is made metres
CODED_BYTES = {"WEBP": 16, "AVIF": 7, "HEIF": 6}  # of a pixel in the memory of their decoders
START_OF_SCAN = b"\xff\xda"  # of a JPEG; cannot be within compressed data
BITS_PER_SAMPLE, TILE_WIDTH, TILE_HEIGHT = 258, 322, 323  # tags of TIFF 6.0
STRANGERS = {  # what often lies where a picture should, by how it starts
    b"version http": "a pointer of Git LFS, so fetch it with git lfs pull",
    b"<": "a page of the web, so it was not downloaded whole",
    b"v/1\x01": "an EXR, whose light has no largest value, so save it as a picture",
} | dict.fromkeys(
    TIFF_MAGICS, "a TIFF of other than 8 or 16 whole bits a channel, or a camera's raw picture"
)
TURNED = ("TIFF", "HEIF")  # formats of which Pillow gives the upright size already
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_image(path: str | Path, out: int = 3, upright: bool = True) -> Tensor:
    """A picture as uint8 RGB "3 h w", upright unless that is left out.

    Grey, palettes, CMYK, YCbCr and LAB are converted, alpha is dropped, and 16 bits (PNG, TIFF,
    PGM, PPM) are rounded to 8 from their whole range. out: bytes that the caller makes of each
    pixel. Raises `DataFormatError` if the file is damaged, too large, or holds no colours of 8 or
    16 bits; `UserError` for HEIC without pillow-heif.
    """
    colours = read_colours(path, out, upright)
    return (
        colours if colours.dtype == torch.uint8 else torch.from_numpy(eight_bits(colours.numpy()))
    )


def read_colours(path: str | Path, out: int = 3, upright: bool = True) -> Tensor:
    """The same, with colours of 16 bits (PNG, TIFF) as they are stored, uint16 "3 h w"."""
    path = Path(path)
    data = read_bytes(path)
    png = _png_header(data, path)
    if (deep := _deep_colours(data, png, path)) is not None:
        turn = orientation(path) if png and upright else 1  # a TIFF is upright already
        return torch.from_numpy(upright_view(deep, turn).astype(np.uint16))
    image, bits = _decoded(data, png, path, out)
    if image.mode not in EIGHT_BIT_MODES and not (image.mode.startswith("I;16") and bits == 16):
        raise _unexpected(path, image, bits, "an 8- or 16-bit picture")
    with _named_errors(path):
        return rgb(image, orientation_of(image) if upright else 1)


def orientation(path: str | Path) -> int:
    """How a picture's tag says to turn it, 1 to 8 (see `pixels`); 1 without a tag.

    Raises `DataFormatError` if the file is no picture.
    """
    with _opened(Path(path)) as image:  # pillow-heif turns a picture, and takes its tag away
        return image.info.get("original_orientation") or orientation_of(image)


def read_gray(path: str | Path, out: int = 3) -> Tensor:
    """A grey picture "1 h w" with the values it was written with: uint8, or uint16 for 16 bits.

    out: bytes that the caller makes of each pixel. Raises `DataFormatError` if the file is damaged,
    too large, coloured, or of another depth.
    """
    image, bits = decode(path, out)
    if image.mode == "L" and bits == 8:
        return plane(image)[None]
    if image.mode.startswith("I;16") and bits == 16:
        return plane(image)[None]
    raise _unexpected(path, image, bits, "8- or 16-bit grey")


def read_depth_png(path: str | Path) -> Tensor:
    """A 16-bit grey PNG, the usual container of depth, as uint16 "1 h w".

    Raises `DataFormatError` if the file is damaged, too large, or not 16-bit grey.
    """
    values = read_gray(path, out=DEPTH_BYTES)
    if values.dtype != torch.uint16:
        raise DataFormatError(f"{path}: 8-bit grey, where depth needs 16-bit grey.")
    return values


def read_labels(path: str | Path) -> Tensor:
    """Label values uint8 "1 h w": 8-bit grey as written, or the indices of a palette.

    Raises `DataFormatError` if the file is damaged, too large, or neither of the two.
    """
    image, bits = decode(path, 2)
    if (image.mode, bits) != ("L", 8) and image.mode != "P":
        raise _unexpected(path, image, bits, "8-bit grey or a palette")
    return plane(image)[None]


def read_ids(path: str | Path) -> Tensor:
    """Numbers int64 "1 h w" spread over an 8-bit RGB PNG: R + 256 G + 65536 B (COCO panoptic).

    Raises `DataFormatError` if the file is damaged, too large, or not 8-bit RGB.
    """
    image, bits = decode(path, 8)
    if image.mode != "RGB" or bits != 8:
        raise _unexpected(path, image, bits, "8-bit RGB")
    ids = np.empty((image.height, image.width), np.int64)
    for rows, strip in strips(image):
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


def image_size(path: str | Path, upright: bool = True) -> tuple[int, int]:
    """Height and width from the header alone, upright unless that is left out. Raises
    `DataFormatError` if there is none."""
    with _opened(Path(path)) as image:
        height, width = image.height, image.width
        turned = upright and image.format not in TURNED and orientation_of(image) > 4
        return (width, height) if turned else (height, width)


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


def plane(image: Image.Image) -> Tensor:
    """The values "h w" of a picture of one channel, upright: uint8, or uint16 of mode I;16."""
    values = upright_view(np.asarray(image), orientation_of(image))
    wide = np.uint16 if image.mode.startswith("I") else np.uint8
    return torch.from_numpy(values.astype(wide))


def decode(path: str | Path, out: int) -> tuple[Image.Image, int]:
    """The decoded picture as it is stored, and the bits per channel in the file (in memory, where
    the format says none): 16-bit grey as mode I;16.

    out: bytes per pixel that the caller makes of it. Raises as `read_image` does.
    """
    data = read_bytes(path := Path(path))
    return _decoded(data, _png_header(data, path), path, out)


def _png_header(data: bytes, path: Path) -> PngHeader | None:
    return check_png(data, path) if data.startswith(SIGNATURE) else None


def _decoded(data: bytes, png: PngHeader | None, path: Path, out: int) -> tuple[Image.Image, int]:
    with _named_errors(path):
        image = open_bounded(data, out, path)
        bits = png.bits if png else _tiff_bits(image)
        image.load()
        if image.format == "PPM" and image.mode == "I":
            image = image.convert("I;16")
    return image, bits or (8 if image.mode in EIGHT_BIT_MODES else 16 if "16" in image.mode else 32)


def _tiff_bits(image: Image.Image) -> int:
    """Bits per channel of a TIFF, 0 for other formats."""
    tags: Any = getattr(image, "tag_v2", {})
    return max(tags.get(BITS_PER_SAMPLE, (0,))) if image.format == "TIFF" else 0


def _deep_colours(data: bytes, png: PngHeader | None, path: Path) -> np.ndarray | None:
    """The colours uint16 "3 h w" of a 16-bit picture that Pillow would cut down, as stored."""
    if png:
        deep = png.bits == 16 and png.colour in COLOURED
        return decode_deep(data, png, path)[:3].numpy() if deep else None
    if data[:4] not in TIFF_MAGICS:
        return None
    with _opened(path) as image:
        deep = _tiff_bits(image) == 16 and len(image.getbands()) > 2
    return read_tiff(path)[..., :3].transpose(2, 0, 1) if deep else None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which only the header is read."""
    with reading(path), _named_errors(path), path.open("rb") as file:
        formats = formats_for(file.read(12))
        file.seek(0)
        with Image.open(file, formats=formats) as image:
            yield image


def formats_for(start: bytes) -> tuple[str, ...]:
    """What a file that starts so may be: HEIC too (ISO/IEC 23008-12) if it says so. Raises
    `UserError` for that where pillow-heif is not installed."""
    if start[4:8] != b"ftyp" or start[8:12] not in HEIF_BRANDS:
        return FORMATS
    extra("pillow_heif", "HEIC pictures").register_heif_opener(thumbnails=False)
    return (*FORMATS, "HEIF")


def open_bounded(data: bytes, out: int, where: object) -> Image.Image:
    """A picture that is not decoded yet, if decoding it and making `out` bytes of each of its
    pixels stays within the limits; Pillow's errors are the caller's."""
    image = Image.open(io.BytesIO(data), formats=formats_for(data[:12]))
    check_pixels(image.width, image.height, where)
    kept = 2 if image.mode.startswith("I;16") else BYTES.get(image.mode, 4)  # in Pillow's memory
    while_decoding = kept
    if image.format in CODED_BYTES:
        while_decoding += CODED_BYTES[image.format]
    elif image.format in ("JPEG", "MPO") and (scans := data.count(START_OF_SCAN)) > 1:
        while_decoding += 2 * len(image.getbands())  # all coefficients, until the last scan
        if scans * math.prod(image.size) > MAX_SCANNED:
            raise DataFormatError(f"{where}: {scans} scans of a JPEG are too many for its size.")
    elif image.format == "TIFF":
        while_decoding += kept  # it is turned as its tag says
        tags: Any = getattr(image, "tag_v2", {})
        check_pixels(tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0), where)
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
        reason = f"not a readable {known} file, it starts with {start!r}" if start else "empty"
        why = next((f": {text}" for sign, text in STRANGERS.items() if start.startswith(sign)), "")
        raise DataFormatError(f"{path}: {reason}{why}.") from error
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
