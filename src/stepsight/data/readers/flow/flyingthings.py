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

CAMERAS = {"left": ("left",), "right": ("right",), "both": ("left", "right")}
DIRECTIONS = {"future": ("future",), "past": ("past",), "both": ("future", "past")}
TOO_FAR = 1000.0  # pixels


class FlyingThings(PairSource):
    """Flow in pixels into the next frame and into the one before. Splits: train, test, all."""

    marker = "frames_*pass/*/*/*/*/*.png"
    recalled = True
    splits = {"train": "TRAIN", "test": "TEST"}

    def __init__(
        self, settings: FlyingThingsSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        self.frames = f"frames_{settings.render}pass"
        self.cameras = CAMERAS[settings.camera]
        self.directions = DIRECTIONS[settings.direction]
        super().__init__(settings, split, quantities)

    @property
    def published(self) -> dict[str, int]:
        """Nine pairs of each sequence; the numbers of sequences are recalled, not read."""
        ways = len(self.cameras) * len(self.directions)
        return {"train": 9 * 2239 * ways, "test": 9 * 437 * ways}

    def pairs(self, folder: str) -> list[Pair]:
        sequences = sorted((self.root / self.frames / folder).glob("*/*"))
        return [
            self._pair(pair, direction)
            for camera in self.cameras
            for direction in self.directions
            for sequence in sequences
            for pair in neighbours((sequence / camera).glob("*.png"))
        ]

    def read_flow(self, path: Path) -> tuple[Tensor, Tensor]:
        planes = read_pfm(path)
        if len(planes) != 3:
            raise DataFormatError(f"{path}: one channel, where flow has three (the third unused).")
        flow = planes[:2].contiguous()
        return flow, (flow.abs() < TOO_FAR).all(dim=0, keepdim=True)

    def _pair(self, frames: tuple[Path, Path], direction: str) -> Pair:
        """Two successive frames as a pair: (i, i + 1) into the future, (i + 1, i) into the past."""
        image, second = frames if direction == "future" else frames[::-1]
        split, letter, sequence, camera = image.parts[-5:-1]
        folder = self.root / "optical_flow" / split / letter / sequence / f"into_{direction}"
        name = f"OpticalFlowInto{direction.title()}_{image.stem}_{camera[0].upper()}.pfm"
        key = f"{split}/{letter}/{sequence}/{camera}/{image.stem}-{direction}"
        return Pair(key, image, second, folder / camera / name)
