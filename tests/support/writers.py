"""Writers of the formats that the readers of data sets know: for tests and benchmarks alone.

Those of numbers are the inverses of `stepsight.data.decoding.formats`, those of PNG files of
`stepsight.data.decoding.images`.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.disk import writing
from stepsight.data.decoding.formats import KITTI_STEPS, KITTI_ZERO, PIEH, PIEH_HEADER
from stepsight.data.decoding.images import write_image
from stepsight.data.decoding.png import HEADER, RGB, SIGNATURE
from stepsight.errors import UserError


def write_flo(path: str | Path, flow: Tensor) -> None:
    """Write flow "2 h w" in pixels, u then v, as float32."""
    assert flow.ndim == 3 and flow.shape[0] == 2, flow.shape
    _write_pieh(path, flow)


def write_dpt(path: str | Path, depth: Tensor) -> None:
    """Write depth "1 h w" in metres as float32."""
    assert depth.ndim == 3 and depth.shape[0] == 1, depth.shape
    _write_pieh(path, depth)


def write_pfm(path: str | Path, values: Tensor) -> None:
    """Write "c h w", c 3 or 1, as little-endian float32."""
    assert values.ndim == 3 and values.shape[0] in (1, 3), values.shape
    height, width = values.shape[1:]
    magic = "PF" if len(values) == 3 else "Pf"
    header = f"{magic}\n{width} {height}\n-1.0\n".encode()
    _write(path, header + _pixels(values.flip(1)).tobytes())


def write_kitti_flow(path: str | Path, flow: Tensor, valid: Tensor) -> None:
    """Write flow "2 h w" where valid "1 h w", rounded to 1/64 px; the rest is stored as zeros.

    Raises `UserError` for valid flow outside the format's -512 .. 511.98 px.
    """
    stored = (flow.to(torch.float64) * KITTI_STEPS + KITTI_ZERO).round()
    if not ((stored >= 0) & (stored <= 65535) | ~valid).all():
        raise UserError(f"{path}: KITTI's PNG holds flow of -512 .. 511.98 px only; write .flo.")
    stored = torch.where(valid, torch.cat([stored, torch.ones_like(stored[:1])]), 0.0)
    write_rgb16(path, stored.to(torch.uint16))


def write_ids(path: str | Path, ids: Tensor) -> None:
    """Write int64 "1 h w" in 0 .. 2^24 - 1 as 8-bit RGB, the inverse of `read_ids`."""
    assert ids.ndim == 3 and ids.shape[0] == 1 and 0 <= ids.min() and ids.max() < 1 << 24
    write_image(path, torch.cat([ids >> shift & 255 for shift in (0, 8, 16)]).to(torch.uint8))


def write_rgb16(path: str | Path, pixels: Tensor) -> None:
    """Write uint16 "3 h w" as a 16-bit RGB PNG, rows unfiltered."""
    assert pixels.dtype == torch.uint16 and pixels.ndim == 3 and pixels.shape[0] == 3, pixels.shape
    height, width = pixels.shape[1:]
    rows = np.zeros((height, 1 + 6 * width), np.uint8)  # each row opens with its filter, 0
    values = pixels.permute(1, 2, 0).contiguous().cpu().numpy().astype(">u2")
    rows[:, 1:] = values.reshape(height, -1).view(np.uint8)
    header = HEADER.pack(width, height, 16, RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    _write(path, SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks))


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def _write_pieh(path: str | Path, values: Tensor) -> None:
    height, width = values.shape[1:]
    _write(path, PIEH_HEADER.pack(PIEH, width, height) + _pixels(values).tobytes())


def _pixels(planes: Tensor) -> np.ndarray:
    """Planes "c h w" as little-endian float32 "h w c"."""
    return planes.detach().permute(1, 2, 0).cpu().float().contiguous().numpy().astype("<f4")


def _write(path: str | Path, data: bytes) -> None:
    with writing(path):
        Path(path).write_bytes(data)
