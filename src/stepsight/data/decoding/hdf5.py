"""Arrays in HDF5 files (Hypersim, Spring, NYUv2's .mat), read by h5py where it is installed.

A damaged or foreign file may point outside itself or claim to be larger than memory; only numbers
stored in the file itself, in as much memory as a file may take, are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepsight.data.decoding.disk import extra, pick, reading
from stepsight.data.decoding.memory import check_memory, limit
from stepsight.errors import DataFormatError

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MATLAB = b"MATLAB 7.3"
USER_BLOCK = 512  # bytes MATLAB puts before the signature
COPIES = 2.5  # of an array, as float32, that reading it and checking what it holds may take
MAX_CHUNKS = 1 << 14  # that an array may lie in: each takes 2 KB and 30 microseconds
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def read_hdf5(
    path: str | Path, key: str, index: int | None = None, copies: float = COPIES
) -> np.ndarray:
    """The array at `key`, or its item `index` along the first axis.

    copies: of it, as float32, that the caller needs memory for. Raises `UserError` if the file or
    h5py is missing, and `DataFormatError` if the file is damaged, has no such array, or the array
    is not plain numbers of a sensible size.
    """
    with open_hdf5(path) as file:
        array = find_array(file, key, Path(path))
        if index is not None and not 0 <= index < len(array):
            raise DataFormatError(f"{path}: '{key}' has {len(array)} items, no item {index}.")
        _check_size(array, array.shape if index is None else array.shape[1:], copies, Path(path))
        return np.asarray(array[()] if index is None else array[index])


def shape_hdf5(path: str | Path, key: str) -> tuple[int, ...]:
    """The shape of the array at `key`, without reading it. Raises as `read_hdf5` does."""
    with open_hdf5(path) as file:
        return find_array(file, key, Path(path)).shape


def find_part(path: Path, part: str, wanted: Iterable[str]) -> tuple[str, int | None]:
    """The array that is meant by `part` (its name, that and the number of an item, or ""), and the
    item; `wanted` are names to look for. Raises `DataFormatError` where none or several are."""
    h5py = extra("h5py", "HDF5 files")
    key, slash, item = part.rpartition("/")
    with open_hdf5(path) as file:
        for name, index in ((part, None), (key, int(item) if item.isdecimal() else None)):
            if name and isinstance(file.get(name, getlink=True), h5py.HardLink):
                return name, index
        names: list[str] = []
        file.visititems(lambda n, one: names.append(n) if isinstance(one, h5py.Dataset) else None)
    return pick(names, part, wanted, path), None


def is_matlab_hdf5(path: Path) -> bool:
    """Whether MATLAB wrote a file as HDF5, its version 7.3."""
    with reading(path), path.open("rb") as file:
        return file.read(len(MATLAB)) == MATLAB


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
    if len(chunk) != array.ndim or math.prod(chunk) * array.dtype.itemsize > limit() / COPIES:
        # The HDF5 library would never come back from the first, and allocate the second.
        raise DataFormatError(f"{path}: damaged HDF5, {array.shape} in chunks of {chunk}.")
    return array


def _check_size(array: h5py.Dataset, shape: tuple[int, ...], copies: float, path: Path) -> None:
    """Raise `DataFormatError` unless the last axes of an array, of that `shape`, can be read in
    bounded memory and time."""
    key, width = array.name, max(4, array.dtype.itemsize)
    check_memory(copies * width * math.prod(shape), f"{key}, {array.dtype} of {shape},", path)
    chunk = (array.chunks or array.shape)[array.ndim - len(shape) :]
    chunks = math.prod(-(-side // max(1, part)) for side, part in zip(shape, chunk))
    if chunks > MAX_CHUNKS:
        raise DataFormatError(f"{path}: damaged HDF5, {key} lies in {chunks} pieces.")


def _check_signature(path: Path) -> None:
    with reading(path), path.open("rb") as file:
        start = file.read(USER_BLOCK + len(SIGNATURE))
    if SIGNATURE not in (start[: len(SIGNATURE)], start[USER_BLOCK:]):
        raise DataFormatError(f"{path}: not an HDF5 file, it starts with {start[:12]!r}.")
