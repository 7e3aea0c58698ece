"""Files of numbers on a pixel grid: flow, depth and plain arrays. Each is held against its size
before anything is allocated, and every failure is a `DataFormatError` that names the file.

`.flo` (Baker et al. 2011, `flowIO.h`) and Sintel's `.dpt` (its `sintel_io.py`) open with bytes
`PIEH` (the float 202021.25), int32 width and int32 height; float32 pixels follow, (u, v) or depth,
all little-endian. `.pfm` has a text header (`PF` or `Pf`, width height, a scale whose sign tells
the byte order: negative is little-endian) and float32 rows from the bottom up. KITTI and Virtual
KITTI 2 keep flow in 16-bit RGB PNGs, each with its encoding. u points right, v down.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.disk import pick, reading
from stepsight.data.decoding.images import read_rgb16
from stepsight.data.decoding.memory import check_memory
from stepsight.errors import DataFormatError

PIEH = b"PIEH"
PIEH_HEADER = struct.Struct("<4sii")
UNKNOWN_ABOVE = 1e9
PFM_HEADER = re.compile(rb"(PF|Pf)\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s")
GAP = rb"(?:\s|#[^\n]*\n)+"  # between the numbers of a .pgm; a comment runs to the end of its line
PGM_HEADER = re.compile(rb"P5" + rb"".join([GAP + rb"(\d{1,9})"] * 3) + rb"\s")
PGM_LONGEST = 4096  # bytes of its header
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
COPIES = 2.5  # of the values, as float32, while they are read and checked
NPY_MAGIC = b"\x93NUMPY"
NPY_HEADER = re.compile(
    r"\{'descr': '([<>|=](?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?){0,31}(?:\d{1,18})?)\),? ?\}\s*"
)
KITTI_ZERO, KITTI_STEPS = 32768, 64  # stored value of no motion, steps per pixel


def read_flo(path: str | Path, *, unknown: bool = False) -> Tensor:
    """Flow float32 "2 h w" in pixels, u then v; unknown pixels keep their large values.

    Raises `DataFormatError` for a wrong magic, sizes that do not fit the file, or NaN, unless that
    may stand for `unknown`.
    """
    rule = "unknown flow is marked by values above 1e9"
    return _read_pieh(Path(path), 2, None if unknown else rule)


def known_flow(flow: Tensor) -> Tensor:
    """Where flow "2 h w" is known, bool "1 h w": both components within 1e9."""
    return ((flow >= -UNKNOWN_ABOVE) & (flow <= UNKNOWN_ABOVE)).all(dim=0, keepdim=True)


def read_known_flo(path: str | Path) -> tuple[Tensor, Tensor]:
    """`read_flo`, and where it is known."""
    flow = read_flo(path)
    return flow, known_flow(flow)


def read_dpt(path: str | Path, *, unknown: bool = False) -> Tensor:
    """Sintel's depth float32 "1 h w", metres along the optical axis. Raises as `read_flo` does."""
    return _read_pieh(Path(path), 1, None if unknown else "depth has a value everywhere")


def read_pfm(path: str | Path, *, unknown: bool = False) -> Tensor:
    """float32 "c h w" with c 3 or 1, first row on top. The size of the scale is left aside.

    Raises `DataFormatError` for a wrong header, sizes that do not fit the file, or NaN, unless that
    may stand for `unknown`.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        start = file.read(128)
        match = PFM_HEADER.match(start)
        if not match or float(match[4]) == 0:
            raise DataFormatError(f"{path}: not a .pfm file, it starts with {start[:16]!r}.")
        width, height, channels = int(match[2]), int(match[3]), 3 if match[1] == b"PF" else 1
        order = "<f4" if match[4].startswith(b"-") else ">f4"
        values = _rest(file, match.end(), (height, width, channels), order, path)
    values = values[::-1] if height > 1 else values  # a single row would not be copied
    return _planes(values, path, None if unknown else "no pixel may be unset")


def read_raw_float(path: str | Path, height: int, width: int) -> Tensor:
    """float32 "1 h w" of a file without a header: little-endian, row by row; may be infinite.

    Raises `DataFormatError` unless the file holds exactly height x width values, none NaN.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        values = _rest(file, 0, (height, width, 1), "<f4", path)
    return _planes(values, path, "missing values are infinite here")


def read_npy(path: str | Path) -> np.ndarray:
    """An array of numbers as `numpy.save` writes it (NEP 1), in native byte order. Never a pickle.

    Raises `DataFormatError` for another header, or a shape that does not fill the file.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        try:
            kind, fortran, shape, start = npy_header(file)
        except ValueError as error:
            raise DataFormatError(f"{path}: {error}.") from error
        # With Fortran's order the first axis runs fastest: the transpose of what C's order gives.
        values = _rest(file, start, shape[::-1] if fortran else shape, kind, path)
    return values.T if fortran else values


def read_npz(path: Path, part: str, wanted: Iterable[str]) -> np.ndarray:
    """An array of a `.npz` file, a ZIP of `.npy` files, in native byte order: the one named `part`,
    the only one, or one called as in `wanted`; of part `NAME/7` that item along the first axis.
    Raises as `read_npy` does."""
    try:
        with reading(path), zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            name, _, item = part.rpartition("/")
            one = part not in members and name in members and item.isdecimal()
            with archive.open(members[name if one else pick(members, part, wanted, path)]) as file:
                kind, fortran, shape, _ = npy_header(file)
                if one and (fortran or not shape or int(item) >= shape[0]):
                    order = ", columns first" if fortran else ""
                    raise DataFormatError(f"{path}: no item {item} of '{name}', {shape}{order}.")
                shape = shape[1:] if one else shape
                needed = math.prod(shape) * np.dtype(kind).itemsize
                check_memory(COPIES * needed, f"{kind} of {shape}", path)
                if one:
                    file.seek(int(item) * needed, os.SEEK_CUR)
                data = file.read(needed if one else needed + 1)
    except ZIP_DAMAGE as error:
        raise DataFormatError(f"{path}: damaged .npz ({error}).") from error
    if len(data) != needed or not needed:
        raise DataFormatError(f"{path}: {needed} bytes of {kind} {shape}, it has {len(data)}.")
    values = np.frombuffer(data, kind).reshape(shape[::-1] if fortran else shape)
    values = values.T if fortran else values
    return values.astype(values.dtype.newbyteorder("="))


def read_pgm(path: str | Path) -> Tensor:
    """A binary grey `.pgm` of 16 bits as uint16 "1 h w", values as they are stored (Netpbm, "pgm").

    Raises `DataFormatError` for another header, 8 bits, or sizes that do not fit the file.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        start = file.read(PGM_LONGEST)
        match = PGM_HEADER.match(start)
        if not match or not 255 < int(match[3]) < 65536:
            what = f"not a .pgm of 16 bits, it starts with {start[:16]!r}"
            raise DataFormatError(f"{path}: {what}.")
        values = _rest(file, match.end(), (int(match[2]), int(match[1]), 1), ">u2", path)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def npy_header(file: BinaryIO | IO[bytes]) -> tuple[str, bool, tuple[int, ...], int]:
    """Type, Fortran's order, shape and place of the values that a `.npy` file holds.

    Raises `ValueError` unless they are numbers. (NumPy runs Python's own parser over the header.)
    """
    magic = file.read(len(NPY_MAGIC) + 2)
    width = 2 if magic[6:7] == b"\x01" else 4  # bytes that hold the length of the header
    length = int.from_bytes(file.read(width), "little")
    match = NPY_HEADER.fullmatch(file.read(min(length, 1 << 16)).decode("latin1"))
    if not magic.startswith(NPY_MAGIC) or not match:
        raise ValueError("not a .npy file of numbers, or a damaged one")
    shape = tuple(int(size) for size in match[3].split(",") if size.strip())
    return match[1], match[2] == "True", shape, len(magic) + width + length


def read_kitti_flow(path: str | Path) -> tuple[Tensor, Tensor]:
    """KITTI's and HD1K's flow: float32 "2 h w" in pixels, 0 where unknown; valid bool "1 h w".

    u = (R - 32768) / 64 and v alike from G, valid where B > 0 (KITTI development kit). Raises
    `DataFormatError` if the file is damaged or not a 16-bit RGB PNG.
    """
    stored = read_rgb16(path)
    valid = stored[2:].to(torch.bool)
    flow = stored[:2].to(torch.float32).sub_(KITTI_ZERO).div_(KITTI_STEPS)
    return flow.masked_fill_(~valid, 0.0), valid


def read_vkitti_flow(path: str | Path) -> tuple[Tensor, Tensor]:
    """Virtual KITTI 2's flow: float32 "2 h w" in pixels, 0 where unknown; valid bool "1 h w".

    u = (2 R / 65535 - 1) (w - 1) and v = (2 G / 65535 - 1) (h - 1), invalid where B = 0 (as read by
    Dtananaev/virtual_kitti_geometry). Raises `DataFormatError` as `read_kitti_flow` does.
    """
    stored = read_rgb16(path)
    height, width = stored.shape[1:]
    extent = torch.tensor([width - 1, height - 1]).view(2, 1, 1)
    valid = stored[2:].to(torch.bool)
    flow = stored[:2].to(torch.float32).mul_(2).div_(65535).sub_(1).mul_(extent)
    return flow.masked_fill_(~valid, 0.0), valid


def _read_pieh(path: Path, channels: int, rule: str | None) -> Tensor:
    with reading(path), path.open("rb") as file:
        header = file.read(PIEH_HEADER.size)
        if len(header) < PIEH_HEADER.size:
            reason = f"{len(header)} bytes do not hold a {path.suffix} header"
            raise DataFormatError(f"{path}: cut off, {reason}.")
        magic, width, height = PIEH_HEADER.unpack(header)
        if magic != PIEH:
            reason = f"not a {path.suffix} file, it starts with {magic!r}, not b'PIEH'"
            raise DataFormatError(f"{path}: {reason}.")
        values = _rest(file, len(header), (height, width, channels), "<f4", path)
    return _planes(values, path, rule)


def _rest(file: BinaryIO, start: int, shape: tuple[int, ...], dtype: str, path: Path) -> np.ndarray:
    """The array that fills the file from `start` on, if it does, in native byte order."""
    size = " x ".join(map(str, shape[1::-1] + shape[2:]))
    if min(shape, default=1) <= 0:
        raise DataFormatError(f"{path}: the header claims {size} values.")
    count, kind = math.prod(shape), np.dtype(dtype)
    needed, actual = start + count * kind.itemsize, path.stat().st_size
    if actual != needed:
        raise DataFormatError(f"{path}: {size} values need {needed} bytes, the file has {actual}.")
    check_memory(COPIES * count * max(4, kind.itemsize), f"{size} values", path)
    file.seek(start)
    values = np.fromfile(file, kind, count).reshape(shape)
    return values.astype(kind.newbyteorder("="), copy=False)


def _planes(values: np.ndarray, path: Path, rule: str | None) -> Tensor:
    """An array "h w c" as float32 "c h w". Raises `DataFormatError` for NaN that breaks a rule."""
    if rule and np.isnan(values).any():
        raise DataFormatError(f"{path}: holds NaN; {rule}.")
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))
