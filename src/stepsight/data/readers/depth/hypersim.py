"""Hypersim (Roberts et al. 2021) as preprocessed by Marigold.

`<root>/filename_list_<split>.txt`, or Marigold's `filename_list_<split>_filtered.txt`, has one line
`rgb depth` per frame, relative to `<root>/<split>/`. Depth is planar, in millimetres, 16-bit
grey PNG, 0 where there is none; Marigold counts 1e-5 m < depth < 65 m as valid. A folder made by
`stepsight data prepare` says in its manifest how many frames it has.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from stepsight.data.prepare.manifest import FILE_NAME, Manifest
from stepsight.data.readers.listed import DepthFrame, ListedDepth, without_suffix

NEAREST, FARTHEST = 1e-5, 65.0  # metres, both exclusive


class Hypersim(ListedDepth):
    """Indoor renderings with planar depth in metres. Splits: those of the list files, and `all`."""

    marker = "filename_list_*.txt"
    lists = re.compile(r"filename_list_([^_]+)(?:_filtered)?\.txt")
    published = {"train": 53885, "val": 7370, "test": 7682}  # Marigold's filtered lists

    def find(self, split: str) -> list[DepthFrame]:
        if (self.root / FILE_NAME).is_file():  # by a rule of ours, which may keep more frames
            self.published = Manifest.read(self.root).counts
        return super().find(split)

    def scan(self) -> dict[str, list[DepthFrame]]:
        return {}

    def frame(self, split: str, image: str, depth: str) -> DepthFrame:
        folder = self.root / split
        return DepthFrame(f"{split}/{without_suffix(image)}", folder / image, folder / depth)

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        depth, _ = super().decode(path, height, width)
        return depth, (depth > NEAREST) & (depth < FARTHEST)
