"""ScanNet (Dai et al. 2017): the 800 frames of its validation scenes on which Marigold evaluates.

`<root>/scene0406_02/color/000300.jpg` and `<root>/scene0406_02/depth/000300.png`, 16-bit grey in
millimetres, 0 where there is none; the pictures must have been brought to the size of the depth.
With `scannet_val_sampled_list_800_1.txt` (lines `rgb depth`) at the root exactly the frames it
lists, without it all that are there.
"""

from __future__ import annotations

import re

from stepsight.data.readers.listed import DepthFrame, ListedDepth


class ScanNet(ListedDepth):
    """Rooms scanned by hand. Splits: val, all."""

    marker = "scene*/color/*.jpg"
    lists = re.compile(r"scannet_(val)_sampled_list_800_1\.txt")
    published = {"val": 800}

    def scan(self) -> dict[str, list[DepthFrame]]:
        images = sorted(path.relative_to(self.root) for path in self.root.glob(self.marker))
        frames = []
        for image in images:
            depth = image.parents[1] / "depth" / f"{image.stem}.png"
            frames.append(self.frame("val", image.as_posix(), depth.as_posix()))
        return {"val": frames}
