"""Numbers in MATLAB files of the older format (MathWorks, "MAT-File Format", Level 5).

A header of 128 bytes ends with the version, 0x0100, and `IM` where numbers are little-endian.
Elements follow: a tag with type and byte count, then data, padded to 8 bytes; or, of up to 4 bytes,
within the tag, whose upper half of the type is then the count. A matrix is an element made of
elements: flags, sizes, name, values in whatever type suffices; it may be compressed as a whole. A
struct has, after its name, the length and the names of its fields and a matrix for each; a cell
array a matrix for each of its cells.

NYUv2's and SUN RGB-D's splits and iBims-1's frames come as such files. SciPy reads more of the
format, and brings the process down on damaged files.
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
CELL, STRUCT, TEXT = 1, 2, 4  # classes of matrices,
NUMERIC = range(6, 16)  # and those of double, single and the integers
DEEPEST = 4  # structs within structs
CHARACTERS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
COPIES = 4  # of what is inflated, while it is taken apart


def read_mat5(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of real numbers in the file by name, of the two or more sizes that the file gives.

    What lies in a struct is called `struct.field`; a cell array of texts is an array of `str`.

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


def _array(content: bytes, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of a matrix, if it is of real numbers or texts; of a struct its fields'."""
    parts = list(_elements(content))
    if len(parts) < 4 or len(parts[0][1]) < 8:
        raise ValueError("a matrix lacks parts")
    (_, flags), (_, sizes), (_, name), (kind, values) = parts[:4]
    shape, title = np.frombuffer(sizes, "<i4").tolist(), name.decode("latin1")
    if flags[0] in NUMERIC and kind in TYPES:
        array = np.frombuffer(values, TYPES[kind])
        if array.size != math.prod(shape):
            raise ValueError("the values of a matrix do not fill it")
        yield title, array.reshape(shape, order="F")
    elif flags[0] == CELL and all(kind == MATRIX for kind, _ in parts[3:]):
        texts = [_text(cell) for _, cell in parts[3:]]
        if None not in texts:
            yield title, np.array(texts, str)
    elif flags[0] == STRUCT and math.prod(shape) == 1 and len(parts) > 4 and depth < DEEPEST:
        width, names = max(1, int.from_bytes(values, "little")), parts[4][1]
        starts = range(0, len(names), width)
        fields = [names[s : s + width].split(b"\0")[0].decode("latin1") for s in starts]
        for field, (kind, inner) in zip(fields, parts[5:]):
            if kind == MATRIX and inner:
                yield from ((f"{title}.{field}{n}", v) for n, v in _array(inner, depth + 1))


def _text(content: bytes) -> str | None:
    """The text that a matrix is, None for another kind."""
    parts = list(_elements(content))
    if len(parts) < 4 or parts[0][1][:1] != bytes([TEXT]) or parts[3][0] not in CHARACTERS:
        return None
    return parts[3][1].decode(CHARACTERS[parts[3][0]])
