"""Depth, flow and normals in whatever format a user keeps them, by the file's suffix.

Arrays are "h w", "1 h w", "h w 1", "c h w" or "h w c". Of a file of several arrays the one is read
that has the name of what is looked for, or that a list names: `room.h5#depth`, and
`room.h5#depth/17` for an item of a stack. MATLAB's stacks run along their last axis.

Ground truth may be sparse: pixels without a value become 0 and are marked invalid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.arrays import read_exr, read_tiff
from stepsight.data.decoding.disk import part_of, pick
from stepsight.data.decoding.formats import (
    known_flow,
    read_dpt,
    read_flo,
    read_kitti_flow,
    read_npy,
    read_npz,
    read_pfm,
    read_pgm,
)
from stepsight.data.decoding.hdf5 import find_part, is_matlab_hdf5, read_hdf5
from stepsight.data.decoding.images import read_colours, read_depth_png
from stepsight.data.decoding.mat5 import read_mat5
from stepsight.data.files import check_any
from stepsight.errors import DataFormatError, UserError

STRIP = 256  # rows of depth that are divided at a time
NORMALS_BYTES = 24  # of a pixel, while a picture is made normals
SHORTEST = 0.5  # normals below this length carry no direction
Reader = Callable[[Path], Tensor]  # of "c h w"
COUNTS = {1: "one", 2: "two", 3: "three"}  # of channels
METRES = {"m": 1.0, "cm": 100.0, "mm": 1000.0}  # units per metre
NAMES = {  # of arrays in files of several, by preference
    "depth": ("depth", "depths", "z", "dataset", "data", "arr_0"),
    "flow": ("flow", "dataset", "data", "arr_0"),
    "normals": ("normals", "normal", "dataset", "data", "arr_0"),
}
CHANNELS: dict[str, tuple[tuple[str, ...], ...]] = {  # of EXR files, by preference
    "depth": (("depth",), ("z",), ("y",), ("r", "g", "b"), ("r",)),
    "flow": (("u", "v"), ("x", "y"), ("r", "g")),
    "normals": (("x", "y", "z"), ("nx", "ny", "nz"), ("r", "g", "b")),
}


def read_depth(
    path: Path, scale: float = 1000.0, unit: str = "", invalid: Sequence[float] = ()
) -> tuple[Tensor, Tensor]:
    """Depth float32 "1 h w" in metres, and where it is known, bool: finite and above 0.

    Whole numbers (16-bit grey PNG, PGM and TIFF; arrays) are divided by `scale`, floats are metres;
    unless `unit` says `m`, `cm`, `mm` or `1/N` of both, or `disparity` or `K/disparity`: depth is 1
    or K over what is stored. invalid: stored values that stand for no depth. Raises
    `DataFormatError` naming the file, and `UserError` for another unit.
    """
    stored = _stored(path, "depth", DEPTH, 1)
    known = _known(stored, invalid)
    per_metre, inverse = parse_depth_unit(unit)
    if inverse:
        depth = per_metre / stored.float()
    elif stored.dtype.is_floating_point:
        depth = stored.float() / (per_metre or 1.0)
    else:
        depth = _divided(stored, per_metre or scale)
    del stored  # memory
    valid = (depth > 0) & (depth < torch.inf) & known
    check_any(valid, path, "no valid depth")
    return depth.masked_fill_(~valid, 0), valid


def parse_depth_unit(unit: str) -> tuple[float, bool]:
    """Units per metre, 0 for `""`, and False; or K of K / stored value, and True.

    Raises `UserError` for what is none of `m`, `cm`, `mm`, `1/N`, `disparity`, `K/disparity`.
    """
    if unit in ("", *METRES):
        return METRES.get(unit, 0.0), False
    first, _, second = unit.rpartition("/")
    inverse = second == "disparity"
    number = (first or "1") if inverse else second if first == "1" else ""
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        known = "m, cm, mm, 1/N of a metre (1/256), disparity, or K/disparity with a number K"
        raise UserError(f"depth_unit={unit} is none of {known}.")
    return value, inverse


def read_flow(
    path: Path, unit: str = "pixels", invalid: Sequence[float] = ()
) -> tuple[Tensor, Tensor]:
    """Flow float32 "2 h w" in pixels of its own grid, u right and v down, and where it is known,
    bool "1 h w".

    A PNG is KITTI's; of three channels the last is left out; unknown is NaN, infinite, beyond 1e9,
    or one of `invalid`. unit: `pixels`, or `normalised`: u / width and v / height are stored.
    Raises `DataFormatError` naming the file.
    """
    if path.suffix.lower() == ".png":
        flow, valid = read_kitti_flow(path)
    else:
        flow = _stored(path, "flow", FLOW, 2).float()
        valid = known_flow(flow)
    valid = valid & _known(flow, invalid).all(dim=0, keepdim=True)
    check_any(valid, path, "no known flow")
    flow = flow.masked_fill_(~valid, 0)
    if unit == "normalised":
        flow *= torch.tensor([flow.shape[2], flow.shape[1]]).view(2, 1, 1)
    return flow, valid


def read_normals(path: Path, invalid: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
    """Unit normals float32 "3 h w" (x right, y down, z forward), and where they are known, bool.

    Of pictures, 2 v / 255 - 1 per channel (8 or 16 bits) and black for unknown. invalid: stored
    values none of which a known normal has. Raises `DataFormatError` naming the file.
    """
    if path.suffix.lower() == ".png":
        stored = read_colours(path, NORMALS_BYTES, upright=False)
        top = 255 if stored.dtype == torch.uint8 else 65535
        black = (stored.numpy() == 0).all(axis=0, keepdims=True)
        normals = stored.float().mul_(2).div_(top).sub_(1)
        normals = normals.masked_fill_(torch.from_numpy(black), 0)
    else:
        stored = _stored(path, "normals", NORMALS, 3).float()
        known = _known(stored, invalid).all(dim=0, keepdim=True)
        normals = stored.nan_to_num_(0, 0, 0).masked_fill_(~known, 0)
    length = normals.norm(dim=0, keepdim=True)
    valid = length > SHORTEST
    check_any(valid, path, "no known normal")
    return normals.div_(length).masked_fill_(~valid, 0), valid


def read_array(path: Path, quantity: str) -> np.ndarray:
    """The array that a path names, or names a part of, in its own type and shape.

    quantity: what is looked for where a file has several arrays. Raises `DataFormatError` if it is
    damaged, too large, or does not say which array is meant.
    """
    file, part = part_of(path)
    names = (quantity, *NAMES.get(quantity, ()))
    match file.suffix.lower():
        case ".npy":
            return _item(read_npy(file), part, path)
        case ".npz":
            return read_npz(file, part, names)
        case ".mat" if not is_matlab_hdf5(file):
            return _mat5(file, part, names)
        case ".h5" | ".hdf5" | ".flo5" | ".mat" as suffix:
            values = read_hdf5(file, *find_part(file, part, names))
            return values.T if suffix == ".mat" else values  # MATLAB's axes lie reversed there
        case ".tif" | ".tiff":
            return read_tiff(file)
        case ".exr":
            return read_exr(file, part, CHANNELS.get(quantity, ()))
    raise DataFormatError(f"{path}: expected one of {', '.join(ARRAYS)}.")


def _mat5(file: Path, part: str, names: Sequence[str]) -> np.ndarray:
    arrays = {n: values for n, values in read_mat5(file).items() if values.dtype.kind in "iuf"}
    key, slash, item = part.rpartition("/")
    if not slash or part in arrays:
        return arrays[pick(arrays, part, names, file)]
    return _item(np.moveaxis(arrays[pick(arrays, key, (), file)], -1, 0), item, file)


def _item(values: np.ndarray, part: str, where: Path) -> np.ndarray:
    if not part:
        return values
    if not part.isdecimal() or int(part) >= len(values):
        raise DataFormatError(f"{where}: has {len(values)} items, none of them '{part}'.")
    return values[int(part)]


def _stored(path: Path, quantity: str, readers: Mapping[str, Reader], channels: int) -> Tensor:
    """What a file holds of a quantity, "c h w"."""
    file, _ = part_of(path)
    read = readers.get(file.suffix.lower())
    if read is None:
        raise DataFormatError(f"{path}: expected one of {', '.join(SUFFIXES[quantity])}.")
    stored = read(path)
    grey = channels == 1 and len(stored) in (3, 4) and bool((stored == stored[:1]).all())
    if quantity == "flow" and len(stored) == 3 or grey:  # a third that is left out; grey, thrice
        return stored[:channels].contiguous()
    if len(stored) != channels:
        verb = "have" if quantity == "normals" else "has"
        reason = f"{len(stored)} channels, where {quantity} {verb} {COUNTS[channels]}"
        raise DataFormatError(f"{path}: {reason}.")
    return stored


def _known(stored: Tensor, invalid: Sequence[float]) -> Tensor:
    """Where stored values are none of `invalid`."""
    values = stored.numpy()
    known = np.ones(values.shape, bool)
    for value in invalid:  # as it reads in the type of the file
        known &= values != (values.dtype.type(value) if values.dtype.kind == "f" else value)
    return torch.from_numpy(known)


def _divided(stored: Tensor, scale: float) -> Tensor:
    """Whole numbers "1 h w" over a scale as float32, a few rows at a time: in float64."""
    depth = torch.empty(stored.shape)
    for into, rows in zip(depth.split(STRIP, 1), stored.split(STRIP, 1)):
        into.copy_(rows.to(torch.float64).div_(scale))
    return depth


def _planes(path: Path, quantity: str, channels: tuple[int, ...]) -> Tensor:
    """An array file as a tensor "c h w". Raises `DataFormatError` for other shapes."""
    values = read_array(path, quantity)
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or values.dtype.kind not in "iuf" or not values.size:
        reason = f"{values.dtype} of shape {values.shape}, where (h, w) or (h, w, c) is expected"
        raise DataFormatError(f"{path}: {reason}.")
    ends = (side for count in channels for side in (-1, 0) if values.shape[side] == count)
    pixels = values[..., None] if values.ndim == 2 else np.moveaxis(values, next(ends, -1), -1)
    kind = np.float32 if values.dtype.kind == "f" else values.dtype
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), kind))


ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".tif", ".tiff", ".exr")
DEPTH: dict[str, Reader] = {
    ".png": read_depth_png,
    ".pgm": read_pgm,
    ".pfm": partial(read_pfm, unknown=True),
    ".dpt": partial(read_dpt, unknown=True),
    **dict.fromkeys(ARRAYS, partial(_planes, quantity="depth", channels=(1, 3, 4))),
}
FLOW: dict[str, Reader] = {
    ".flo": partial(read_flo, unknown=True),
    ".pfm": partial(read_pfm, unknown=True),
    **dict.fromkeys((".flo5", *ARRAYS), partial(_planes, quantity="flow", channels=(2, 3))),
}
NORMALS: dict[str, Reader] = {
    ".pfm": partial(read_pfm, unknown=True),
    **dict.fromkeys(ARRAYS, partial(_planes, quantity="normals", channels=(3,))),
}
SUFFIXES = {  # quantity: suffixes of its files
    "depth": tuple(DEPTH),
    "flow": (".png", *FLOW),
    "normals": (".png", *NORMALS),
}
