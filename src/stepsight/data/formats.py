"""Optical flow files: Middlebury's `.flo`.

Bytes `PIEH` (the float 202021.25), int32 width, int32 height, then height x width x (u, v) float32,
all little-endian: 12 + 8 width height bytes. u points right and v down, in pixels. A component
beyond 1e9 marks an unknown pixel (Baker et al. 2011, `flowIO.h`).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.errors import DataFormatError, UserError

FLO_MAGIC = b"PIEH"
FLO_HEADER = struct.Struct("<4sii")
UNKNOWN_ABOVE = 1e9


def read_flo(path: str | Path) -> Tensor:
    """Flow float32 "2 h w" in pixels, u then v; unknown pixels keep their large values.

    The header is held against the size of the file before anything is allocated. Raises
    `DataFormatError` for a wrong magic, sizes that do not fit the file, or NaN.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = file.read(FLO_HEADER.size)
            width, height = _flo_size(header, path.stat().st_size, path)
            flow = np.fromfile(file, "<f4", 2 * width * height)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    if np.isnan(flow).any():
        raise DataFormatError(f"{path}: holds NaN; unknown flow is marked by values above 1e9.")
    planes = flow.reshape(height, width, 2).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes, np.float32))


def write_flo(path: str | Path, flow: Tensor) -> None:
    """Write flow "2 h w" in pixels, u then v, as float32."""
    assert flow.ndim == 3 and flow.shape[0] == 2, flow.shape
    height, width = flow.shape[1:]
    pixels = flow.detach().permute(1, 2, 0).cpu().float().numpy()
    data = FLO_HEADER.pack(FLO_MAGIC, width, height) + pixels.astype("<f4").tobytes()
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error


def known_flow(flow: Tensor) -> Tensor:
    """Where flow "2 h w" is known, bool "1 h w": both components within 1e9."""
    return (flow.abs() <= UNKNOWN_ABOVE).all(dim=0, keepdim=True)


def _flo_size(header: bytes, file_bytes: int, path: Path) -> tuple[int, int]:
    """Width and height from the header, if they are the ones that fill the file."""
    if len(header) < FLO_HEADER.size:
        raise DataFormatError(f"{path}: cut off, {len(header)} bytes do not hold a .flo header.")
    magic, width, height = FLO_HEADER.unpack(header)
    if magic != FLO_MAGIC:
        raise DataFormatError(f"{path}: not a .flo file, it starts with {magic!r}, not b'PIEH'.")
    if width <= 0 or height <= 0:
        raise DataFormatError(f"{path}: the header claims a flow of {width} x {height} pixels.")
    expected = FLO_HEADER.size + 8 * width * height
    if file_bytes != expected:
        reason = f"{width} x {height} pixels need {expected} bytes, the file has {file_bytes}"
        raise DataFormatError(f"{path}: {reason}.")
    return width, height
