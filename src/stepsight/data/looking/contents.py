"""What a file holds, before anybody knows what it means: arrays, their form, stored values."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from stepsight.data.decoding.disk import extra, part_of
from stepsight.data.decoding.formats import npy_header
from stepsight.data.decoding.hdf5 import is_matlab_hdf5, open_hdf5
from stepsight.data.decoding.images import PICTURES, decode, read_colours
from stepsight.data.decoding.mat5 import read_mat5
from stepsight.data.decoding.truth import ARRAYS, DEPTH, FLOW, read_array
from stepsight.data.looking.names import HOLDERS
from stepsight.errors import DataFormatError, UserError

Look = Literal["colour", "alpha", "grey", "palette", "bits", "grey16", "rgb16", "array"]
MODES: dict[str, Look] = {"1": "bits", "L": "grey", "P": "palette", "RGBA": "alpha", "LA": "alpha"}
SEVERAL = tuple(suffix for suffix in HOLDERS if suffix != ".json")  # files of named arrays
CHANNELS = (1, 2, 3, 4)
KNOWN = {*PICTURES, *ARRAYS, *DEPTH, *FLOW}  # suffixes
MANY = 64  # values of a file that is no map of classes
SMALLEST = 8  # pixels a side of an array that may be a picture
PIXEL_BYTES = 8  # of a pixel, while it is looked at
LOSSY = (".jpg", ".jpeg", ".webp")


class FileForm(NamedTuple):
    """How a file keeps its pixels."""

    look: Look
    channels: int
    type: str  # NumPy's name of the stored type
    size: tuple[int, int]  # height, width
    few: bool = False  # 8 bits of which few values occur, as in maps of classes and masks


def parts_of(file: Path) -> list[str]:
    """The arrays of a file that may be planes: `#name`, or `#name/0`, `#name/1`, ... of a stack;
    "" for one that is alone."""
    try:
        shapes = dict(_shapes(file))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataFormatError(f"{file}: damaged ({error}).") from error
    counts = {shape[0] for shape in shapes.values() if len(shape) == 4}
    parts = [part for name, shape in shapes.items() for part in _planes(name, shape, counts)]
    return [""] if len(shapes) == 1 and parts and "/" not in parts[0] else parts


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each array of numbers, items of stacks along the first axis."""
    suffix = file.suffix.lower()
    if suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield name.removesuffix(".npy"), npy_header(member)[2]
    elif suffix == ".mat" and not is_matlab_hdf5(file):
        for name, values in read_mat5(file).items():
            if values.dtype.kind in "iuf":
                stack = values.ndim == 4 or values.ndim == 3 and values.shape[-1] not in CHANNELS
                yield name, np.moveaxis(values, -1, 0).shape if stack else values.shape
    else:
        h5py, found = extra("h5py", "HDF5 files"), dict[str, tuple[int, ...]]()

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf":
                found[name] = item.shape

        with open_hdf5(file) as opened:
            opened.visititems(note)
        yield from found.items()


def _planes(name: str, shape: tuple[int, ...], counts: set[int]) -> list[str]:
    """The parts of an array: one, or the items of a stack.

    counts: of the stacks of pictures in the file, whose maps are "n h w" with the same n.
    """
    if sum(side >= SMALLEST for side in shape) < 2:
        return []
    channels = len(shape) == 3 and (shape[-1] in CHANNELS or shape[0] in CHANNELS)
    stack = len(shape) == 4 and shape[0] > 1 or len(shape) == 3 and not channels
    stack = stack or len(shape) == 3 and shape[0] in counts
    return [f"#{name}/{item}" for item in range(shape[0])] if stack else [f"#{name}"]


def form_of(path: Path, role: str) -> FileForm:
    """The form of a file. Raises `UserError` or `DataFormatError` where it cannot be opened."""
    values, look = _read(path, role)
    height, width, channels = values.shape
    few = look == "grey" and channels == 1 and len(np.unique(values)) <= MANY
    return FileForm(look, channels, values.dtype.name, (height, width), few)


def stored(path: Path, role: str) -> np.ndarray:
    """The values of a file as they are stored, "h w c"; of palettes the indices.

    role: what is looked for where a file keeps several. Raises as `form_of` does.
    """
    return _read(path, role)[0]


def _read(path: Path, role: str) -> tuple[np.ndarray, Look]:
    file, part = part_of(path)
    suffix = file.suffix.lower()
    if suffix == ".pgm" and (wide := _wide_pgm(file)) is not None:
        return wide, "grey16"
    if suffix in PICTURES and not part and not suffix.startswith(".tif"):
        return _picture(file)
    if suffix in (".flo", ".pfm", ".dpt"):
        readers = FLOW if suffix == ".flo" else DEPTH
        return readers[suffix](file).permute(1, 2, 0).numpy(), "array"
    if suffix in (*ARRAYS, ".flo5"):
        values = _channels_last(read_array(path, role), path)
        eight = suffix.startswith(".tif") and values.dtype == np.uint8
        return values, ("colour" if values.shape[-1] == 3 else "grey") if eight else "array"
    raise DataFormatError(f"{path}: of a format that is not read.")


def _picture(path: Path) -> tuple[np.ndarray, Look]:
    image, bits = decode(path, PIXEL_BYTES)
    if bits == 16 and not image.mode.startswith("I"):
        return read_colours(path).permute(1, 2, 0).numpy(), "rgb16"
    look = "grey16" if image.mode.startswith("I") else MODES.get(image.mode, "colour")
    if look == "palette" and "transparency" in image.info:
        look, image = "alpha", image.convert("RGBA")
    if look == "colour" and image.mode != "RGB":
        image = image.convert("RGB")
    values = np.asarray(image)
    return values if values.ndim == 3 else values[..., None], look


def _wide_pgm(path: Path) -> np.ndarray | None:
    try:
        return DEPTH[".pgm"](path).permute(1, 2, 0).numpy()
    except UserError:
        return None  # of 8 bits, or damaged: Pillow says


def _channels_last(values: np.ndarray, path: Path) -> np.ndarray:
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        return values[..., None]
    if values.ndim == 3 and values.shape[-1] not in CHANNELS and values.shape[0] in CHANNELS:
        return np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[-1] not in CHANNELS or not values.size:
        raise DataFormatError(f"{path}: {values.dtype} of shape {values.shape} is no plane.")
    return values
