"""Small files that claim, or unpack to, far more than memory holds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.files.containers import claims
from benchmarks.faults.files.mutation import png_chunk
from stepsight import config
from stepsight.data.decoding import formats, hdf5, images, mat5, truth

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Bomb:
    """Something that reads a file."""

    name: str
    read: partial[object]


def bombs(folder: Path, quick: bool) -> list[Bomb]:
    """All of them, laid out in a folder; quick: without those that take seconds to make."""
    found: list[Bomb] = []

    def add(name: str, content: bytes, read: Callable[[Path], object]) -> None:
        path = folder / name
        path.write_bytes(content)
        found.append(Bomb(name, partial(read, path)))

    for side in (5000, 60_000) if quick else (5000, 8192, 60_000):
        add(f"grey-{side}.png", _png(side, side, 8, 0), images.read_image)
        add(f"labels-{side}.png", _png(side, side, 8, 0), images.read_labels)
        add(f"depth-{side}.png", _png(side, side, 16, 0), partial(truth.read_depth, scale=1))
        add(f"flow-{side}.png", _png(side, side // 2, 16, 2), truth.read_flow)
        add(f"rgb-{side}.png", _png(side, side // 2, 8, 2), truth.read_normals)
        add(f"ids-{side}.png", _png(side, side // 2, 8, 2), images.read_ids)
    add("flow-3200.png", _png(3200, 3200, 16, 2), truth.read_flow)
    add("depth-6000x4000.png", _png(6000, 4000, 16, 0), partial(truth.read_depth, scale=1))
    packed = zlib.compress(bytes((30 if quick else 300) << 20), 1)
    for kind in (b"zTXt", b"iCCP"):
        text = png_chunk(kind, b"name\0\0" + packed)
        add(f"{kind.decode()}.png", _png(8, 8, 8, 0, text), images.read_image)
    add("much.png", _png(8, 8, 8, 0, pixels=packed), images.read_image)
    add("much-16.png", _png(8, 8, 16, 2, pixels=packed), images.read_rgb16)
    for name, options in {"jpg": {}, "scans.jpg": {"progressive": True}}.items():
        content = _jpeg(5000, 5000, **options)
        add(f"real-{name}", content, images.read_image)
        add(f"claims-{name}", _claiming(content, 65_000), images.read_image)
    content = _jpeg(5000, 5000, progressive=True)
    start = content.rindex(b"\xff\xda")
    add("many-scans.jpg", content[:start] + content[start:-2] * 400, images.read_image)
    picture = io.BytesIO()
    Image.new("RGB", (16_000, 1000)).save(picture, "WEBP", lossless=True, method=0)
    add("wide.webp", picture.getvalue(), images.read_image)
    for claim in claims(folder):
        add(*claim)
    add("huge.ppm", b"P6\n100000 100000\n255\n" + bytes(99), images.read_image)
    add("huge.pfm", b"PF\n100000000 100000000\n-1.0\n" + bytes(99), formats.read_pfm)
    header = struct.pack("<4sii", b"PIEH", (1 << 31) - 1, (1 << 31) - 1)
    add("huge.flo", header + bytes(99), formats.read_flo)
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 100000000), }"
    header = b"\x93NUMPY\1\0" + struct.pack("<H", len(shape)) + shape
    add("huge.npy", header + bytes(99), formats.read_npy)
    start = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    size = (100 if quick else 900) << 20
    inflated = zlib.compress(struct.pack("<II", 14, size) + bytes(size), 1)
    once = struct.pack("<II", 15, len(inflated)) + inflated
    add("huge.mat", start + once, mat5.read_mat5)
    part = zlib.compress(struct.pack("<II", 3, 30 << 20) + bytes(30 << 20))
    add("many.mat", start + (struct.pack("<II", 15, len(part)) + part) * 50, mat5.read_mat5)
    for name, shape_of, chunks in (
        ("giant", (1 << 20, 1 << 20, 2), (64, 64, 1)),
        ("contiguous", (1 << 13, 1 << 14, 2), None),
        ("pieces", (1 << 12, 1 << 11, 2), (1, 8, 1)),
        ("flow", (2160, 3840, 2), (2160, 3840, 2)),
    ):
        path = folder / f"{name}.flo5"
        _hdf5(path, shape_of, chunks)
        found.append(Bomb(path.name, partial(truth.read_flow, path)))
        found.append(Bomb(path.name, partial(hdf5.read_hdf5, path, "flow")))
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    add("aliases.yaml", "\n".join(lines).encode(), lambda path: config.load([str(path)]))
    return found


def _png(
    width: int, height: int, bits: int, colour: int, more: bytes = b"", pixels: bytes = b""
) -> bytes:
    """A PNG of zeros, packed a piece at a time."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    if not pixels:
        packer, row = zlib.compressobj(1), bytes(1 + width * bits // 8 * (3 if colour == 2 else 1))
        rows = height if height <= 8192 else 9  # what claims more is refused by its header
        pixels = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    return PNG + header + more + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def _jpeg(width: int, height: int, **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 200)).save(file, "JPEG", subsampling=0, **options)
    return file.getvalue()


def _claiming(content: bytes, side: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = next(content.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in content)
    return content[: at + 5] + struct.pack(">HH", side, side) + content[at + 9 :]


def _hdf5(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...] | None) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        packing = "gzip" if chunks else None
        made = file.create_dataset("flow", shape, "f4", chunks=chunks, compression=packing)
        if path.stem == "flow":
            made[...] = np.zeros(shape, np.float32)
