"""Fixtures of the file tests: writers that share no code with the readers, and full samples."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.types import Sample


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _png_bytes(pixels: np.ndarray) -> bytes:
    """uint8 or uint16, "h w" (grey) or "h w 3" (RGB), every row with filter 0."""
    height, width = pixels.shape[:2]
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    colour = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


@pytest.fixture
def png_bytes() -> Callable[[np.ndarray], bytes]:
    return _png_bytes


@pytest.fixture
def write_png() -> Callable[[Path, np.ndarray], Path]:
    def write(path: Path, pixels: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png_bytes(pixels))
        return path

    return write


@pytest.fixture
def write_ppm() -> Callable[[Path, np.ndarray], Path]:
    def write(path: Path, pixels: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6\n%d %d\n255\n" % pixels.shape[1::-1] + pixels.tobytes())
        return path

    return write


@pytest.fixture
def flo_bytes() -> Callable[[np.ndarray], bytes]:
    """float "h w 2" -> the bytes of a .flo file."""

    def encode(flow: np.ndarray) -> bytes:
        header = struct.pack("<fii", 202021.25, flow.shape[1], flow.shape[0])
        return header + struct.pack(f"<{flow.size}f", *flow.ravel().tolist())

    return encode


@pytest.fixture
def full_sample() -> Callable[..., Sample]:
    """A random sample with every quantity: `full_sample(seed, height, width)`."""

    def make(seed: int = 0, height: int = 6, width: int = 10) -> Sample:
        rng = torch.Generator().manual_seed(seed)

        def uniform(channels: int) -> Tensor:
            return torch.rand(channels, height, width, generator=rng)

        modal = uniform(1) < 0.4
        return Sample(
            image=(uniform(3) * 256).byte(),
            key=f"sample {seed}",
            source="full",
            second=(uniform(3) * 256).byte(),
            depth=uniform(1) * 20,
            depth_valid=uniform(1) < 0.8,
            flow=uniform(2) * 8 - 4,
            flow_valid=uniform(1) < 0.8,
            labels=(uniform(1) * 256).long()[0],
            modal=modal,
            amodal=modal | (uniform(1) < 0.2),
            amodal_valid=torch.ones_like(modal),
            whole=(uniform(3) * 256).byte(),
            normals=torch.nn.functional.normalize(uniform(3) - 0.5, dim=0),
            normals_valid=uniform(1) < 0.8,
            class_id=seed % 7,
        )

    return make


@pytest.fixture
def assert_same() -> Callable[[Sample, Sample], None]:
    """Equality of two samples, field by field, bit for bit and type for type."""

    def check(a: Sample, b: Sample) -> None:
        for field in fields(Sample):
            left, right = getattr(a, field.name), getattr(b, field.name)
            if isinstance(left, Tensor):
                assert left.dtype == right.dtype and torch.equal(left, right), field.name
            else:
                assert left == right, field.name

    return check


@pytest.fixture
def real_samples() -> Callable[[str], Path]:
    """The folder of real files of a data set; skips the test where it is absent."""
    repository = Path(__file__).parents[3]
    root = Path(os.environ.get("STEPSIGHT_SAMPLES", repository.parent / "shared" / "samples"))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real {name} files at {root} (set STEPSIGHT_SAMPLES)")
        return root / name

    return folder


@pytest.fixture
def pictures(tmp_path, write_png):
    """`pictures("a", "b")`: a root with these pictures; below a split if it is given."""

    def write(*names, split="", second=False):
        for folder in ["images"] + ["second"] * second:
            for name in names:
                image = np.full((2, 3, 3), len(folder), np.uint8)
                write_png(tmp_path / split / folder / f"{name}.png", image)
        return tmp_path

    return write
