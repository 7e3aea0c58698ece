"""Spring (Mehl et al. 2023): an animated film in HD, with flow at twice the size of its images.

`<root>/train/0001/frame_left/frame_left_0001.png` with
`<root>/train/0001/flow_{FW,BW}_left/flow_FW_left_0001.flo5` (HDF5, key `flow`, (2h, 2w, 2)): to the
next frame (FW) or to the frame before (BW), in pixels of the HD images, NaN where there is none.
`<root>/test/` has images alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.data.readers.config import SpringSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource, neighbours
from stepsight.errors import DataFormatError


def read_flow(path: Path) -> tuple[Tensor, Tensor]:
    stored = read_hdf5(path, "flow")
    if stored.ndim != 3 or stored.shape[2] != 2 or stored.shape[0] % 2 or stored.shape[1] % 2:
        raise DataFormatError(f"{path}: an array of {stored.shape}, where (2h, 2w, 2) belongs.")
    flow = torch.from_numpy(stored[::2, ::2]).permute(2, 0, 1).to(torch.float32).contiguous()
    valid = flow.isfinite().all(dim=0, keepdim=True)
    return torch.where(valid, flow, 0.0), valid


class Spring(PairSource):
    """Flow in pixels at every second row and column, which brings it to the size of the images.

    Splits: train (and all, the same); test has pairs of images and no truth.
    """

    settings: SpringSettings
    marker = "*/*/frame_*/frame_*.png"
    recalled = True
    splits = {"train": "train"}
    unscored = {"test": "test"}
    directions = ("FW", "BW")
    decode_flow = staticmethod(read_flow)

    def find(self, split: str) -> list[Pair]:
        # 5000 frames of 37 scenes; recalled, not read.
        self.published = {"train": (5000 - 37) * len(self.variants)}
        return super().find(split)

    def pairs(self, folder: str) -> list[Pair]:
        scenes = sorted((self.root / folder).glob("*"))
        return [
            _pair(frames, camera, direction)
            for camera, direction in self.variants
            for scene in scenes
            for frames in neighbours((scene / f"frame_{camera}").glob("*.png"))
        ]


def _pair(frames: tuple[Path, Path], camera: str, direction: str) -> Pair:
    """Two successive frames as a pair: (i, i + 1) forward, (i + 1, i) backward."""
    image, second = frames if direction == "FW" else frames[::-1]
    scene, number = image.parents[1], image.stem.rpartition("_")[2]
    name = f"flow_{direction}_{camera}"
    return Pair(
        f"{scene.name}/{name}_{number}", image, second, scene / name / f"{name}_{number}.flo5"
    )
