"""SUN RGB-D (Song et al. 2015): 10,335 rooms by four depth cameras, the unpacked `SUNRGBD`.

`<root>/kv2/kinect2data/<capture>/image/*.jpg`, beside that folder `depth/*.png`, as measured, and
`depth_bfx/*.png`, holes filled from the picture's other frames; `kv1`, `realsense` and `xtion` nest
their captures deeper. Depth is 16-bit grey, its bits rotated: millimetres are
(d >> 3) | (d << 13) of the stored d, 0 where there is none (the toolbox's `read3dPoints.m`). The
split is that of the toolbox's `allsplit.mat`, whose texts name captures by `.../SUNRGBD/<capture>`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.images import read_depth_png
from stepsight.data.decoding.mat5 import read_mat5
from stepsight.data.readers.config import SunRgbdSettings
from stepsight.data.readers.listed import DepthFrame, ListedDepth
from stepsight.errors import DataFormatError, UserError

FOLDERS = {"filled": "depth_bfx", "raw": "depth"}  # option: folder
SPLIT_FILE = "allsplit.mat"
SPLIT_PLACES = ("", "SUNRGBDtoolbox/traintestSUNRGBD/", "../SUNRGBDtoolbox/traintestSUNRGBD/")
LISTS = {"train": "alltrain", "test": "alltest"}  # split: array of that file


class SunRgbd(ListedDepth):
    """Rooms at up to 730 x 530. Splits: train and test by `allsplit.mat`; all does without."""

    settings: SunRgbdSettings
    marker = "[krx]*/*/*/image/*.jpg"  # kv1, kv2, realsense, xtion
    recalled = True
    published = {"train": 5285, "test": 5050, "all": 10335}  # the last read at the source

    def find(self, split: str) -> list[DepthFrame]:
        frames = self.scan()["all"]
        if split == "all":
            return self.pick(split, {"all": frames})
        names = self._splits()
        parts = {s: [f for f in frames if _capture(f.key) in names[s]] for s in names}
        return self.pick(split, parts)

    def scan(self) -> dict[str, list[DepthFrame]]:
        images = sorted(path.relative_to(self.root) for path in self.root.glob("**/image/*.jpg"))
        return {"all": [self._frame(image) for image in images]}

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        millimetres = rotated(read_depth_png(path))
        return millimetres.to(torch.float32) / self.per_metre, millimetres > 0

    def _frame(self, image: Path) -> DepthFrame:
        """The frame of a picture; of its folder of depth the only file, which has another name."""
        folder = self.root / image.parents[1] / FOLDERS[self.settings.depth]
        depths = sorted(folder.glob("*.png"))
        if len(depths) != 1:
            raise DataFormatError(
                f"{self.name}: {folder} holds {len(depths)} .png files, where one belongs."
            )
        return DepthFrame(image.with_suffix("").as_posix(), self.root / image, depths[0])

    def _splits(self) -> dict[str, set[str]]:
        """The captures of each split. Raises `UserError` without the file."""
        paths = [self.root / place / SPLIT_FILE for place in SPLIT_PLACES]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise UserError(
                f"{self.name}: {paths[0]} not found; it lies in SUNRGBDtoolbox/traintestSUNRGBD. "
                f"Only split 'all' does without it."
            )
        arrays = read_mat5(path)
        if missing := [name for name in LISTS.values() if name not in arrays]:
            raise DataFormatError(f"{path}: has no list '{missing[0]}' of captures.")
        return {
            split: {str(text).rpartition("SUNRGBD/")[2].strip("/") for text in arrays[name]}
            for split, name in LISTS.items()
        }


def rotated(stored: Tensor) -> Tensor:
    """Millimetres int32 of stored uint16 values: their 16 bits turned right by three."""
    bits = stored.to(torch.int32)
    return (bits >> 3 | bits << 13) & 0xFFFF


def _capture(key: str) -> str:
    """The capture that a frame's key lies in."""
    return key.rpartition("/image/")[0]
