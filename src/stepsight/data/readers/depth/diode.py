"""DIODE (Vasiljevic et al. 2019): laser depth indoors and outdoors.

`<root>/{indoors,outdoor}/scene_00019/scan_00183/<name>.png`, beside it `<name>_depth.npy`, metres
along the optical axis, and `<name>_depth_mask.npy`, 1 where that is valid; both arrays may carry a
trailing channel. The root is the `val` of the official archive, or the whole of Marigold's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.formats import read_npy
from stepsight.data.readers.listed import DepthFrame, ListedDepth
from stepsight.errors import DataFormatError

PARTS = ("indoors", "outdoor")


class Diode(ListedDepth):
    """Rooms and streets at 768 x 1024. Splits: indoors, outdoor, and val, which is both."""

    marker = "*door*/scene_*/scan_*"
    published = {"val": 771, "indoors": 325, "outdoor": 446, "all": 771}

    def find(self, split: str) -> list[DepthFrame]:
        return self.pick("all" if split == "val" else split, self.scan())

    def scan(self) -> dict[str, list[DepthFrame]]:
        return {part: self._part(part) for part in PARTS}

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        mask_path = path.with_name(f"{path.stem}_mask.npy")
        depth, mask = read_plane(path), read_plane(mask_path) > 0
        if depth.shape != mask.shape:
            sizes = " and ".join(" x ".join(map(str, p.shape[1:])) for p in (mask, depth))
            raise DataFormatError(f"{mask_path}: mask and depth have {sizes} pixels.")
        if depth[mask].isnan().any():
            raise DataFormatError(f"{path}: holds NaN where its mask says that depth is valid.")
        valid = mask & depth.isfinite() & (depth > 0)
        return torch.where(valid, depth, 0.0), valid

    def _part(self, part: str) -> list[DepthFrame]:
        names = sorted(p.relative_to(self.root) for p in self.root.glob(f"{part}/*/*/*.png"))
        images = [name.as_posix() for name in names]
        return [self.frame(part, i, f"{i.removesuffix('.png')}_depth.npy") for i in images]


def read_plane(path: Path) -> Tensor:
    """An array "h w" or "h w 1" as float32 "1 h w". Raises `DataFormatError` for another shape."""
    values = read_npy(path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape))
        raise DataFormatError(f"{path}: an array of {shape} is no picture of depth.")
    return torch.from_numpy(np.ascontiguousarray(values)).to(torch.float32)[None]
