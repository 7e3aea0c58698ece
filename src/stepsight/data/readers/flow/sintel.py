"""MPI-Sintel (Butler et al. 2012): an animated film with flow, occlusions and depth.

`<root>/training/{clean,final,flow,occlusions,invalid,depth}/<scene>/frame_0001.{png,flo,dpt}`, and
`<root>/test/{clean,final}/<scene>/...` without truth. Masks are white where a pixel is hidden in
the next frame (occlusions) or its flow is wrong (invalid); depth is a separate archive.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.formats import read_dpt, read_known_flo
from stepsight.data.files import check_any, check_shapes
from stepsight.data.readers.config import SintelSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource, neighbours
from stepsight.types import Sample


class Sintel(PairSource):
    """Flow in pixels, depth in metres. With flow, a scene's last frame is left out.

    Splits: train (and all, the same); test has pairs of images and no truth.
    """

    settings: SintelSettings
    offers = frozenset({"flow", "depth"})
    marker = "training/*/*/frame_*.png"
    farthest = math.inf  # its sky has a depth
    splits = {"train": "training"}
    unscored = {"test": "test"}
    decode_flow = staticmethod(read_known_flo)

    def find(self, split: str) -> list[Pair]:
        # 1041 pairs; for depth alone one frame more per scene, whose number is recalled.
        self.published = {"train": 1041 if "flow" in self.quantities else 1041 + 23}
        return super().find(split)

    def present(self) -> frozenset[str]:
        return frozenset(q for q in self.offers if (self.root / "training" / q).is_dir())

    def pairs(self, folder: str) -> list[Pair]:
        pairs = []
        for scene in sorted((self.root / folder / self.settings.render).glob("*")):
            frames = sorted(scene.glob("frame_*.png"))
            if self.quantities == {"depth"}:
                pairs += [Pair(self._key(frame), frame) for frame in frames]
            else:
                pairs += [self._pair(*frames) for frames in neighbours(frames)]
        return pairs

    def needed(self, entry: Pair) -> list[Path]:
        depth = [self._truth(entry, "depth", ".dpt")] if "depth" in self.quantities else []
        return super().needed(entry) + depth

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        if sample.flow_valid is not None:
            sample.occluded = self._mask(entry, "occlusions", sample)
            invalid = self._mask(entry, "invalid", sample)
            if invalid is not None:
                sample.flow_valid = sample.flow_valid & ~invalid
                check_any(sample.flow_valid, entry.image, "no valid flow")
        if "depth" in self.quantities:
            path = self._truth(entry, "depth", ".dpt")
            sample.depth = read_dpt(path)
            check_shapes([entry.image, path], sample.image, sample.depth)
            sample.depth_valid = (sample.depth > 0) & torch.isfinite(sample.depth)
            check_any(sample.depth_valid, path, "no valid depth")
        return sample

    def _mask(self, entry: Pair, kind: str, sample: Sample) -> Tensor | None:
        """A mask "1 h w" of the training frames, None where its folder was not unpacked."""
        if not (self.root / "training" / kind).is_dir():
            return None
        return self.read_white(self._truth(entry, kind, ".png"), sample, entry)

    def _pair(self, image: Path, second: Path) -> Pair:
        pair = Pair(self._key(image), image, second)
        return pair._replace(flow=self._truth(pair, "flow", ".flo"))

    def _key(self, image: Path) -> str:
        return f"{image.parent.name}/{image.stem}"

    def _truth(self, entry: Pair, kind: str, suffix: str) -> Path:
        return self.root / "training" / kind / f"{entry.key}{suffix}"
