"""NYUv2's labelled set (Silberman et al. 2012), extracted to files as Marigold's archive has it.

`<root>/<split>/<scene>/rgb_0001.png`, beside it `depth_0001.png`, what the sensor measured, and
`filled_0001.png`, the holes filled in: 16-bit grey PNG in millimetres, 0 where there is none.
Metrics are taken on the measured depth.
"""

from __future__ import annotations

import re

from stepsight.data.readers.config import NyuSettings
from stepsight.data.readers.listed import DepthFrame, ListedDepth

FILES = {"raw": "depth_", "filled": "filled_"}  # option: what replaces `rgb_` in the file name


class Nyu(ListedDepth):
    """Rooms seen by a Kinect. Splits: train, test, all; with `filename_list_<split>.txt` at the
    root, those listed.
    """

    settings: NyuSettings
    marker = "*/*/rgb_*.png"
    lists = re.compile(r"filename_list_([^_]+)\.txt")
    published = {"train": 795, "test": 654}

    def scan(self) -> dict[str, list[DepthFrame]]:
        splits: dict[str, list[DepthFrame]] = {}
        for path in sorted(self.root.glob(self.marker)):
            image = path.relative_to(self.root)
            frame = self.frame(image.parts[0], image.as_posix(), "")
            splits.setdefault(image.parts[0], []).append(frame)
        return splits

    def frame(self, split: str, image: str, depth: str) -> DepthFrame:
        """Both kinds of depth are named by the image, whichever of them a list has."""
        frame = super().frame(split, image, depth)
        name = frame.image.name.replace("rgb_", FILES[self.settings.depth])
        return frame._replace(depth=frame.image.with_name(name))
