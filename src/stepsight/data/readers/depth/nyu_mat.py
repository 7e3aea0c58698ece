"""NYUv2's labelled set (Silberman et al. 2012) as published: a single file of 1,449 frames.

`<root>/nyu_depth_v2_labeled.mat` is MATLAB 7.3, that is HDF5 with the axes in reverse: `images`
uint8 "n 3 w h", and in metres float32 "n w h" `rawDepths`, what the sensor measured, 0 where there
is none, and `depths`, the holes filled in. `<root>/splits.mat`, of an older format, numbers the
frames of each split from 1 (`trainNdxs`, `testNdxs`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.hdf5 import read_hdf5, shape_hdf5
from stepsight.data.decoding.mat5 import read_mat5
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.data.readers.config import NyuMatSettings
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

FRAMES, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
DEPTHS = {"raw": "rawDepths", "filled": "depths"}  # option: array
NUMBERS = {"train": "trainNdxs", "test": "testNdxs"}


class NyuMat(FileSource[int]):
    """Rooms seen by a Kinect. An entry is a frame's number, from 1. Splits: train, test, all."""

    settings: NyuMatSettings
    offers = frozenset({"depth"})
    marker = FRAMES
    published = {"train": 795, "test": 654, "all": 1449}

    def find(self, split: str) -> list[int]:
        frames = shape_hdf5(self.root / FRAMES, "images")[0]
        if split == "all":
            return self.pick(split, {"all": list(range(1, frames + 1))})
        path = self.root / SPLITS
        if not path.is_file():
            raise UserError(f"{self.name}: {path} not found. Only split 'all' does without it.")
        return self.pick(split, read_splits(path, frames))

    def read(self, entry: int) -> Sample:
        sample = Sample(self._image(entry), key=f"{entry:04d}", source=self.name)
        if "depth" in self.quantities:
            array = DEPTHS[self.settings.depth]
            sample.depth, sample.depth_valid = self.depth(entry, array, sample.image)
        return sample

    def depth(self, entry: int, array: str, image: Tensor) -> tuple[Tensor, Tensor]:
        """Depth "1 h w" of a frame in metres, one of `DEPTHS`, and where it is valid.

        Raises `DataFormatError` unless it fits the frame's image and has a valid value.
        """
        path = self.root / FRAMES
        where = Path(f"{path}, {array}, frame {entry}")
        depth = self._stored_depth(entry, array, where)
        check_shapes([path, where], image, depth)
        valid = depth.isfinite() & (depth > 0)
        check_any(valid, where, "no valid depth")
        return torch.where(valid, depth, 0.0), valid

    def _image(self, number: int) -> Tensor:
        path = self.root / FRAMES
        stored = read_hdf5(path, "images", number - 1)
        if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[0] != 3:
            size = " x ".join(map(str, stored.shape))
            raise DataFormatError(f"{path}: an image is {size} of {stored.dtype}, not 3 x w x h.")
        return upright(stored)

    def _stored_depth(self, number: int, array: str, where: Path) -> Tensor:
        stored = read_hdf5(self.root / FRAMES, array, number - 1)
        if stored.ndim != 2 or stored.dtype.kind != "f":
            raise DataFormatError(
                f"{where}: {stored.ndim} axes of {stored.dtype}, not w x h floats."
            )
        if np.isnan(stored).any():
            raise DataFormatError(f"{where}: holds NaN, where no depth is written as 0.")
        with np.errstate(over="ignore"):  # infinite then, and invalid
            return upright(stored[None].astype(np.float32))


def upright(stored: np.ndarray) -> Tensor:
    """ "c w h" as MATLAB has it -> "c h w"."""
    return torch.from_numpy(np.ascontiguousarray(stored.swapaxes(-1, -2)))


def read_splits(path: Path, frames: int) -> dict[str, list[int]]:
    """The frame numbers of each split. Raises `DataFormatError` unless all are 1 .. `frames`."""
    arrays, parts = read_mat5(path), {}
    for split, name in NUMBERS.items():
        if name not in arrays:
            raise DataFormatError(f"{path}: no array '{name}' (it has: {', '.join(arrays)}).")
        if wrong := [n for n in arrays[name].flat if n not in range(1, frames + 1)]:
            reason = f"{name} has {wrong[0]}, where the frames are 1 to {frames}"
            raise DataFormatError(f"{path}: {reason}.")
        parts[split] = arrays[name].astype(int).ravel().tolist()
    return parts
