"""FlyingThings3D (Mayer et al. 2016): sequences of ten frames of flying objects.

`<root>/frames_{clean,final}pass/{TRAIN,TEST}/<A|B|C>/0000/{left,right}/0006.png` and, below
`<root>/optical_flow/` in the same order of folders,
`.../0000/into_{future,past}/left/OpticalFlowIntoFuture_0006_L.pfm`: the flow from frame 6 to frame
7, or to frame 5 into the past. Flow of 1000 px and more in a component is not counted, as in RAFT.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stepsight.data.decoding.formats import read_pfm
from stepsight.data.readers.config import FlyingThingsSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource, neighbours
from stepsight.errors import DataFormatError

TOO_FAR = 1000.0  # pixels


def read_flow(path: Path) -> tuple[Tensor, Tensor]:
    planes = read_pfm(path)
    if len(planes) != 3:
        raise DataFormatError(f"{path}: one channel, where flow has three (the third unused).")
    flow = planes[:2].contiguous()
    return flow, (flow.abs() < TOO_FAR).all(dim=0, keepdim=True)


class FlyingThings(PairSource):
    """Flow in pixels into the next frame and into the previous. Splits: train, test, all."""

    settings: FlyingThingsSettings
    marker = "frames_*pass/*/*/*/*/*.png"
    recalled = True
    splits = {"train": "TRAIN", "test": "TEST"}
    directions = ("future", "past")
    decode_flow = staticmethod(read_flow)

    def find(self, split: str) -> list[Pair]:
        ways = 9 * len(self.variants)  # pairs per sequence, whose numbers are recalled, not read
        self.published = {"train": 2239 * ways, "test": 437 * ways}
        return super().find(split)

    def pairs(self, folder: str) -> list[Pair]:
        frames = self.root / f"frames_{self.settings.render}pass"
        sequences = sorted((frames / folder).glob("*/*"))
        return [
            self._pair(pair, direction)
            for camera, direction in self.variants
            for sequence in sequences
            for pair in neighbours((sequence / camera).glob("*.png"))
        ]

    def _pair(self, frames: tuple[Path, Path], direction: str) -> Pair:
        """Two successive frames as a pair: (i, i + 1) into the future, (i + 1, i) into the past."""
        image, second = frames if direction == "future" else frames[::-1]
        split, letter, sequence, camera = image.parts[-5:-1]
        folder = self.root / "optical_flow" / split / letter / sequence / f"into_{direction}"
        name = f"OpticalFlowInto{direction.title()}_{image.stem}_{camera[0].upper()}.pfm"
        key = f"{split}/{letter}/{sequence}/{camera}/{image.stem}-{direction}"
        return Pair(key, image, second, folder / camera / name)
