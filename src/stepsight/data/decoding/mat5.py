"""Numbers in MATLAB files of the older format (MathWorks, "MAT-File Format", Level 5).

A header of 128 bytes ends with the version, 0x0100, and `IM` where numbers are little-endian.
Elements follow: a tag with type and byte count, then data, padded to 8 bytes; or, of up to 4 bytes,
within the tag, whose upper half of the type is then the count. A matrix is an element made of
elements: flags, sizes, name, values in whatever type suffices; it may be compressed as a whole.

NYUv2's splits come as such a file. SciPy reads more of the format, and brings the process down on
damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stepsight.data.decoding.disk import read_bytes
from stepsight.data.decoding.memory import check_memory, limit
from stepsight.errors import DataFormatError

HEADER = 128
LITTLE_ENDIAN = b"\x00\x01IM"
TAG = struct.Struct("<II")
TYPES = {
    1: "i1",
    2: "u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
MATRIX, COMPRESSED = 14, 15
NUMERIC = range(6, 16)  # classes of matrices: double, single and the integers
COPIES = 4  # of what is inflated, while it is taken apart


def read_mat5(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of real numbers in the file by name, as stored: column by column, flat.

    Raises `UserError` if the file cannot be read and `DataFormatError` if it is damaged or of
    another format.
    """
    data = read_bytes(Path(path))
    if data[HEADER - 4 : HEADER] != LITTLE_ENDIAN:
        raise DataFormatError(f"{path}: not a MATLAB 5 file, it starts with {data[:12]!r}.")
    try:
        return dict(_arrays(data[HEADER:], path))
    except (struct.error, zlib.error, ValueError, UnicodeError) as error:
        raise DataFormatError(f"{path}: damaged MATLAB file ({error}).") from error


def _arrays(data: bytes, path: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    total = len(data)
    for kind, content in _elements(data):
        if kind == COMPRESSED:
            inflated = zlib.decompressobj().decompress(content, max(1, limit() // COPIES - total))
            total += len(inflated) + 1
            check_memory(COPIES * total, "what it holds, inflated,", path)
            kind, content = next(_elements(inflated), (0, b""))
        if kind == MATRIX:
            yield from _array(content)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and data of each element. Raises `struct.error` or `ValueError` where it is cut off."""
    position = 0
    while position < len(data):
        kind, size = TAG.unpack_from(data, position)
        start = position + TAG.size
        after = start + size + (0 if kind == COMPRESSED else -size % 8)
        if kind >> 16:
            kind, size, start, after = kind & 0xFFFF, kind >> 16, position + 4, start
        if start + size > len(data):
            raise ValueError(f"an element of {size} bytes runs past the end")
        yield kind, data[start : start + size]
        position = after


def _array(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of a matrix, if it is of real numbers."""
    parts = list(_elements(content))[:4]
    if len(parts) < 4 or len(parts[0][1]) < 8:
        raise ValueError("a matrix lacks parts")
    (_, flags), (_, sizes), (_, name), (kind, values) = parts
    if flags[0] in NUMERIC and kind in TYPES:
        array = np.frombuffer(values, TYPES[kind])
        if array.size != math.prod(np.frombuffer(sizes, "<i4").tolist()):
            raise ValueError("the values of a matrix do not fill it")
        yield name.decode("latin1"), array
