"""ETH3D's high-resolution multi-view photographs (Schöps et al. 2017), laser depth, 13 scenes.

`<root>/rgb/<scene>/images/dslr_images/DSC_0219.JPG` and, in spite of its name without any picture
format, `<root>/depth/<scene>_dslr_depth/<scene>/ground_truth_depth/dslr_images/DSC_0219.JPG`: a
float32 for each pixel of the photograph, row by row, little-endian, metres, infinite where nothing
was measured. This is Marigold's layout, and what unpacking `<scene>_dslr_jpg.7z` into `rgb` and
`<scene>_dslr_depth.7z` into `depth/<scene>_dslr_depth` gives.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.formats import read_raw_float
from stepsight.data.readers.listed import DepthFrame, ListedDepth


class Eth3d(ListedDepth):
    """Photographs of 24 megapixels. Split: all, which is the part with public ground truth."""

    marker = "depth/*/*/ground_truth_depth/dslr_images/*.JPG"
    lists = re.compile(r"eth3d_filename_list()\.txt")
    published = {"all": 454}

    def scan(self) -> dict[str, list[DepthFrame]]:
        depths = sorted(path.relative_to(self.root) for path in self.root.glob(self.marker))
        images = [f"rgb/{depth.parts[2]}/images/dslr_images/{depth.name}" for depth in depths]
        return {"all": [self.frame("all", i, d.as_posix()) for i, d in zip(images, depths)]}

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        depth = read_raw_float(path, height, width)
        valid = (depth > 0) & (depth < torch.inf)
        return depth.masked_fill_(~valid, 0.0), valid
