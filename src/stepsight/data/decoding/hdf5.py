"""Arrays in HDF5 files (Hypersim, Spring, NYUv2's .mat), read by h5py where it is installed.

A damaged or foreign file may point outside itself or claim to be larger than memory; only numbers
stored in the file itself, up to `MAX_BYTES`, are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepsight.data.decoding.disk import extra, reading
from stepsight.errors import DataFormatError

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # bytes MATLAB puts before the signature
MAX_BYTES = 1 << 30
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def read_hdf5(path: str | Path, key: str, index: int | None = None) -> np.ndarray:
    """The array at `key`, or its item `index` along the first axis.

    Raises `UserError` if the file or h5py is missing, and `DataFormatError` if the file is damaged,
    has no such array, or the array is not plain numbers of a sensible size.
    """
    with open_hdf5(path) as file:
        array = find_array(file, key, Path(path))
        if index is not None and not 0 <= index < len(array):
            raise DataFormatError(f"{path}: '{key}' has {len(array)} items, no item {index}.")
        items = 1 if index is None else len(array)
        if array.nbytes // items > MAX_BYTES:
            raise DataFormatError(f"{path}: '{key}' claims {array.nbytes // items} bytes.")
        return np.asarray(array[()] if index is None else array[index])


def shape_hdf5(path: str | Path, key: str) -> tuple[int, ...]:
    """The shape of the array at `key`, without reading it. Raises as `read_hdf5` does."""
    with open_hdf5(path) as file:
        return find_array(file, key, Path(path)).shape


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """The file, open for reading; whatever h5py raises inside becomes a `DataFormatError`."""
    h5py, path = extra("h5py", "HDF5 files"), Path(path)
    _check_signature(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGE as error:
        raise DataFormatError(f"{path}: damaged HDF5 ({error}).") from error


def find_array(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """The array of numbers at `key` of an open file. Raises `DataFormatError` if it is none."""
    h5py = extra("h5py", "HDF5 files")
    array: Any = file.get(key) if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(array, h5py.Dataset):
        raise DataFormatError(f"{path}: no array '{key}' (it has: {', '.join(file) or 'nothing'}).")
    if array.is_virtual or array.external:
        raise DataFormatError(f"{path}: '{key}' is stored in other files.")
    if array.dtype.kind not in "biuf" or not array.shape:
        raise DataFormatError(f"{path}: '{key}' is no array of numbers ({array.dtype}).")
    chunk = array.chunks or (1,) * array.ndim
    if len(chunk) != array.ndim or math.prod(chunk) * array.dtype.itemsize > MAX_BYTES:
        # The HDF5 library would never come back from the first, and allocate the second.
        raise DataFormatError(f"{path}: damaged HDF5, {array.shape} in chunks of {chunk}.")
    return array


def _check_signature(path: Path) -> None:
    with reading(path), path.open("rb") as file:
        start = file.read(USER_BLOCK + len(SIGNATURE))
    if SIGNATURE not in (start[: len(SIGNATURE)], start[USER_BLOCK:]):
        raise DataFormatError(f"{path}: not an HDF5 file, it starts with {start[:12]!r}.")
