"""NYUv2's labelled set (Silberman et al. 2012), extracted to files as Marigold's archive has it.

`<root>/<split>/<scene>/rgb_0001.png`, beside it `depth_0001.png`, what the sensor measured, and
`filled_0001.png`, the holes filled in: 16-bit grey PNG in millimetres, 0 where there is none.
Metrics are taken on the measured depth.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from stepsight.data.readers.config import NyuSettings
from stepsight.data.readers.listed import Frame, ListedDepth, read_integer_depth

FILES = {"raw": "depth_", "filled": "filled_"}  # option: what replaces `rgb_` in the file name


class Nyu(ListedDepth):
    """Rooms seen by a Kinect. Splits: train, test, all; with `filename_list_<split>.txt` at the
    root, those listed.
    """

    marker = "*/*/rgb_*.png"
    lists = re.compile(r"filename_list_([^_]+)\.txt")
    published = {"train": 795, "test": 654}

    def __init__(
        self, settings: NyuSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        self._prefix = FILES[settings.depth]
        super().__init__(settings, split, quantities)

    def scan(self) -> dict[str, list[Frame]]:
        found: dict[str, list[Frame]] = {}
        for path in sorted(self.root.glob(self.marker)):
            image = path.relative_to(self.root)
            frame = self.frame(image.parts[0], image.as_posix(), "")
            found.setdefault(image.parts[0], []).append(frame)
        return found

    def frame(self, split: str, image: str, depth: str) -> Frame:
        """Both kinds of depth are named by the image, whichever of them a list has."""
        frame = super().frame(split, image, depth)
        name = frame.image.name.replace("rgb_", self._prefix)
        return frame._replace(depth=frame.image.with_name(name))

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        return read_integer_depth(path, 1000)
