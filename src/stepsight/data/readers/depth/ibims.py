"""iBims-1 (Koch et al. 2018): 100 rooms with laser depth, the unpacked `ibims1_core_mat`.

`<root>/corridor_01.mat` and so on, MATLAB 5 files of a struct `data` with `rgb` uint8 "480 640 3",
`depth` "480 640" in metres, and two masks that are 0 where depth does not count: `mask_invalid`
(nothing measured) and `mask_transp` (glass). The official `evaluate_ibims.py` sets depth to 0 under
both. Its normals are another set's: `dsine_ibims`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stepsight.data.decoding.mat5 import read_mat5
from stepsight.data.files import FileSource, check_any
from stepsight.errors import DataFormatError
from stepsight.types import Sample

MASKS = ("mask_invalid", "mask_transp")  # 0: leave out


class Ibims(FileSource[Path]):
    """An entry is the file of a room. Split: all."""

    offers = frozenset({"depth"})
    marker = "*_[0-9][0-9].mat"
    published = {"all": 100}

    def find(self, split: str) -> list[Path]:
        return self.pick(split, {"all": sorted(self.root.glob(self.marker))})

    def read(self, entry: Path) -> Sample:
        arrays = read_mat5(entry)
        rgb = _of(arrays, "rgb", "uint8 of h x w x 3", entry)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise DataFormatError(f"{entry}: its rgb is {rgb.dtype} of shape {rgb.shape}.")
        image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
        sample = Sample(image, key=entry.stem, source=self.name)
        if "depth" in self.quantities:
            planes = [
                _of(arrays, name, "as large as its rgb", entry, rgb.shape[:2])
                for name in ("depth", *MASKS)
            ]
            with np.errstate(over="ignore"):  # infinite then, and invalid
                depth = torch.from_numpy(np.ascontiguousarray(planes[0], np.float32))[None]
            counts = torch.from_numpy(np.logical_and(*(plane != 0 for plane in planes[1:])))[None]
            valid = counts & (depth > 0) & depth.isfinite()
            check_any(valid, entry, "no valid depth")
            sample.depth, sample.depth_valid = depth.masked_fill_(~valid, 0.0), valid
        return sample


def _of(
    arrays: dict[str, np.ndarray],
    name: str,
    what: str,
    path: Path,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """An array of the struct. Raises `DataFormatError` unless it is there and of that shape."""
    array = arrays.get(f"data.{name}")
    if array is None or (shape and array.shape != shape):
        found = ", ".join(arrays) or "nothing" if array is None else f"one of shape {array.shape}"
        raise DataFormatError(f"{path}: needs data.{name}, {what}; it has {found}.")
    return array
