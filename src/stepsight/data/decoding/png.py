"""PNG files chunk by chunk, held against the specification before a native decoder sees them.

Pillow reduces 16-bit RGB to 8 bits without a word; torchvision's decoder ends the process on
damaged pixels and is on its way out. So 16-bit RGB is taken apart here: chunks whole, CRC right,
exactly as many bytes as the header asks for, only known filters; then Pillow undoes the filters
twice, once for the high bytes and once for the low ones. Sections are those of the PNG
specification (W3C, third edition): 5 chunks, 7.3 and 9 filtered rows, 10 compression, 11.2 header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stepsight.data.decoding.memory import check_memory
from stepsight.errors import DataFormatError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
RGB, GREY_ALPHA, RGBA = 2, 4, 6  # colour types
COLOURED = {RGB: 3, GREY_ALPHA: 2, RGBA: 4}  # channels of those that Pillow cuts down to 8 bits
CHANNEL_BYTES = 9  # of a channel, while 16 bits are decoded: filtered rows twice, two pictures
LAST_FILTER = 4  # 0 none, 1 left, 2 up, 3 mean of both, 4 Paeth


class PngHeader(NamedTuple):
    width: int
    height: int
    bits: int
    colour: int
    compression: int
    filtering: int
    interlace: int


def read_chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk, IEND the last. Raises `DataFormatError` for damage."""
    view, position, kind = memoryview(data), len(SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DataFormatError(f"{path}: damaged PNG, cut off after {len(data)} bytes.")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise DataFormatError(f"{path}: damaged PNG, chunk {kind!r} runs past the end.")
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise DataFormatError(f"{path}: damaged PNG, wrong CRC in chunk {kind!r}.")
        yield kind, view[position + 8 : end]
        position = end + 4


def check_png(data: bytes, path: Path) -> PngHeader:
    """The header of a PNG whose chunks are all whole. Raises `DataFormatError`."""
    chunks = list(read_chunks(data, path))
    kind, content = chunks[0]
    if kind != b"IHDR" or len(content) != HEADER.size:
        raise DataFormatError(f"{path}: damaged PNG, the header chunk does not come first.")
    header = PngHeader(*HEADER.unpack(content))
    if not header.width or not header.height:
        raise DataFormatError(f"{path}: PNG of {header.width} x {header.height} pixels.")
    return header


def decode_rgb16(data: bytes, header: PngHeader, path: Path) -> Tensor:
    """The pixels uint16 "3 h w" of a 16-bit RGB PNG with this header. Raises `DataFormatError`."""
    if header[2:] != (16, RGB, 0, 0, 0):
        what = f"{header.bits} bits, colour type {header.colour}, interlacing {header.interlace}"
        raise DataFormatError(f"{path}: PNG of {what}, where plain 16-bit RGB is expected.")
    return decode_deep(data, header, path)


def decode_deep(data: bytes, header: PngHeader, path: Path) -> Tensor:
    """The pixels uint16 "c h w" of a 16-bit PNG with this header, of a colour type in `COLOURED`;
    grey with alpha as "4 h w", grey thrice. Raises `DataFormatError`."""
    if header[4:] != (0, 0, 0):
        raise DataFormatError(f"{path}: an interlaced PNG of 16 bits; save it without interlacing.")
    channels = COLOURED[header.colour]
    needed = CHANNEL_BYTES * channels * header.width * header.height + 2 * len(data)
    check_memory(needed, f"{header.width} x {header.height} pixels", path)
    packed = b"".join(content for kind, content in read_chunks(data, path) if kind == b"IDAT")
    rows = _inflate(packed, header.height, 1 + 2 * channels * header.width, path)
    stored = zlib.compress(rows, level=0)  # so that reading it twice does not inflate it twice
    del rows
    try:
        return torch.from_numpy(_sixteen_bits(stored, header))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{path}: damaged PNG ({error}).") from error


def _sixteen_bits(stored: bytes, header: PngHeader) -> np.ndarray:
    if header.colour == GREY_ALPHA:  # pixels of four bytes, as those of 8-bit RGBA are
        image = np.asarray(Image.frombytes("RGBA", header[:2], stored, "zip", "RGBA"))
        high, low = (image[..., byte::2].astype(np.uint16) for byte in (0, 1))
        return (high << 8 | low).transpose(2, 0, 1)[[0, 0, 0, 1]]
    mode = "RGB" if header.colour == RGB else "RGBA"
    values = np.zeros((len(mode), header.height, header.width), np.uint16)
    for order, shift in ((f"{mode};16B", 8), (f"{mode};16L", 0)):  # Pillow keeps the high byte
        image = Image.frombytes(mode, header[:2], stored, "zip", order)
        for channel in range(len(mode)):
            values[channel] |= np.asarray(image.getchannel(channel)).astype(np.uint16) << shift
    return values


def _inflate(packed: bytes, rows: int, row_bytes: int, path: Path) -> bytes:
    """The filtered rows, inflated no further than the header allows; size and filters are right."""
    inflater = zlib.decompressobj()
    try:
        unpacked = inflater.decompress(packed, rows * row_bytes + 1)
    except zlib.error as error:
        raise DataFormatError(f"{path}: damaged PNG ({error}).") from error
    if len(unpacked) != rows * row_bytes or not inflater.eof:
        raise DataFormatError(f"{path}: damaged PNG, its pixels do not fill {rows} rows exactly.")
    if max(unpacked[::row_bytes], default=0) > LAST_FILTER:
        raise DataFormatError(f"{path}: damaged PNG, a row has an unknown filter.")
    return unpacked
