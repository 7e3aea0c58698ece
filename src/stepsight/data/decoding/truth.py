"""Depth, flow and normals in whatever format a user keeps them, by the file's suffix.

Ground truth may be sparse: pixels without a value become 0 and are marked invalid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.formats import (
    known_flow,
    read_dpt,
    read_flo,
    read_kitti_flow,
    read_npy,
    read_pfm,
)
from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.data.decoding.images import read_depth_png, read_image
from stepsight.data.files import check_any
from stepsight.errors import DataFormatError

STRIP = 256  # rows of depth that are divided at a time
NORMALS_BYTES = 24  # of a pixel, while a picture is made normals
SHORTEST = 0.5  # normals below this length carry no direction


def read_depth(path: Path, scale: float) -> tuple[Tensor, Tensor]:
    """Depth float32 "1 h w" in metres, and where it is known, bool: finite and above 0.

    `.png` (16-bit grey) and whole numbers in `.npy` are divided by `scale`; `.npy`, `.pfm` and
    `.dpt` hold metres. Raises `DataFormatError` naming the file.
    """
    stored = _by_suffix(path, DEPTH)(path)
    whole = not stored.dtype.is_floating_point
    if stored.shape[0] != 1:
        raise DataFormatError(f"{path}: {stored.shape[0]} channels, where depth has one.")
    depth = _divided(stored, scale) if whole else stored.float()
    del stored  # memory
    valid = (depth > 0) & (depth < torch.inf)
    check_any(valid, path, "no valid depth")
    return depth.masked_fill_(~valid, 0), valid


def read_flow(path: Path) -> tuple[Tensor, Tensor]:
    """Flow float32 "2 h w" in pixels, and where it is known, bool "1 h w".

    `.flo`, `.png` (KITTI's), `.npy` ("h w 2"), `.pfm` (a third channel is left out) and `.flo5`;
    unknown is NaN, infinite, or beyond 1e9. Raises `DataFormatError` naming the file.
    """
    if path.suffix.lower() == ".png":
        flow, valid = read_kitti_flow(path)
    else:
        flow = _by_suffix(path, FLOW)(path).float()
        if flow.shape[0] not in (2, 3):
            raise DataFormatError(f"{path}: {flow.shape[0]} channels, where flow has two.")
        flow = flow[:2].contiguous()
        valid = known_flow(flow)
    check_any(valid, path, "no known flow")
    return flow.masked_fill_(~valid, 0), valid


def read_normals(path: Path) -> tuple[Tensor, Tensor]:
    """Unit normals float32 "3 h w" (x right, y down, z forward), and where they are known, bool.

    `.npy` ("h w 3"), or an 8-bit `.png` with 2 v / 255 - 1 per channel and black for unknown.
    Raises `DataFormatError` naming the file.
    """
    if path.suffix.lower() == ".png":
        stored = read_image(path, out=NORMALS_BYTES)
        known = (stored > 0).any(dim=0, keepdim=True)
        normals = stored.float().mul_(2).div_(255).sub_(1).masked_fill_(~known, 0)
    else:
        normals = _by_suffix(path, NORMALS)(path).float().nan_to_num_(0, 0, 0)
    if normals.shape[0] != 3:
        raise DataFormatError(f"{path}: {normals.shape[0]} channels, where normals have three.")
    length = normals.norm(dim=0, keepdim=True)
    valid = length > SHORTEST
    check_any(valid, path, "no known normal")
    return normals.div_(length).masked_fill_(~valid, 0), valid


def _divided(stored: Tensor, scale: float) -> Tensor:
    """Whole numbers "1 h w" over a scale as float32, a few rows at a time: in float64."""
    depth = torch.empty(stored.shape)
    for into, rows in zip(depth.split(STRIP, 1), stored.split(STRIP, 1)):
        into.copy_(rows.to(torch.float64).div_(scale))
    return depth


def _planes(values: np.ndarray, path: Path) -> Tensor:
    """An array "h w" or "h w c" as a tensor "c h w". Raises `DataFormatError` otherwise."""
    if values.ndim not in (2, 3) or values.dtype.kind not in "iuf":
        reason = f"{values.dtype} of shape {values.shape}, where (h, w) or (h, w, c) is expected"
        raise DataFormatError(f"{path}: {reason}.")
    pixels = values if values.ndim == 3 else values[..., None]
    kind = np.float32 if values.dtype.kind == "f" else values.dtype
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), kind))


def _by_suffix(path: Path, readers: dict[str, Callable[[Path], Tensor]]) -> Callable:
    if path.suffix.lower() not in readers:
        raise DataFormatError(f"{path}: expected one of {', '.join(sorted({'.png', *readers}))}.")
    return readers[path.suffix.lower()]


def _read_npy(path: Path) -> Tensor:
    return _planes(read_npy(path), path)


DEPTH: dict[str, Callable[[Path], Tensor]] = {
    ".png": read_depth_png,
    ".npy": _read_npy,
    ".pfm": partial(read_pfm, unknown=True),
    ".dpt": partial(read_dpt, unknown=True),
}
FLOW: dict[str, Callable[[Path], Tensor]] = {
    ".flo": partial(read_flo, unknown=True),
    ".npy": _read_npy,
    ".pfm": partial(read_pfm, unknown=True),
    ".flo5": lambda path: _planes(read_hdf5(path, "flow"), path),
}
NORMALS: dict[str, Callable[[Path], Tensor]] = {".npy": _read_npy}
SUFFIXES = {  # quantity: suffixes of its files
    "depth": tuple(DEPTH),
    "flow": (".png", *FLOW),
    "normals": (".png", *NORMALS),
}
