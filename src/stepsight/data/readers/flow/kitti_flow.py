"""KITTI's flow benchmarks of 2012 (Geiger et al.) and 2015 (Menze and Geiger): sparse flow.

`<root>/training/<images>/000000_10.png` and `000000_11.png`, where `<images>` is `colored_0` in
2012 and `image_2` in 2015; `<root>/training/flow_occ/000000_10.png` has the flow of all measured
pixels, `flow_noc` of those that stay in sight; `<root>/testing/` has images alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from stepsight.data.decoding.formats import read_kitti_flow
from stepsight.data.files import check_shapes
from stepsight.data.readers.config import Kitti2012FlowSettings, Kitti2015FlowSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource
from stepsight.types import Sample


class Kitti2015(PairSource):
    """Sparse flow in pixels, never filled in between; occlusions where both kinds are there.

    Splits: train (and all, the same); test has pairs of images and no truth.
    """

    images: ClassVar[str] = "image_2"
    marker = "training/image_2/*_10.png"
    recalled = True
    splits = {"train": "training"}
    unscored = {"test": "testing"}
    published = {"train": 200}  # recalled, not read

    def __init__(
        self,
        settings: Kitti2012FlowSettings | Kitti2015FlowSettings,
        split: str,
        quantities: frozenset[str] | None = None,
    ) -> None:
        self.truth = "flow_occ" if settings.occluded else "flow_noc"
        super().__init__(settings, split, quantities)

    def pairs(self, folder: str) -> list[Pair]:
        first = sorted((self.root / folder / self.images).glob("*_10.png"))
        return [self._pair(path, folder) for path in first]

    def read_flow(self, path: Path) -> tuple[Tensor, Tensor]:
        return read_kitti_flow(path)

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        in_sight = self.root / "training" / "flow_noc"
        if sample.flow_valid is not None and self.truth == "flow_occ" and in_sight.is_dir():
            path = in_sight / entry.image.name
            _, seen = read_kitti_flow(path)
            check_shapes([entry.image, path], sample.image, seen)
            sample.occluded = sample.flow_valid & ~seen
        return sample

    def _pair(self, image: Path, folder: str) -> Pair:
        second = image.with_name(image.name.replace("_10.png", "_11.png"))
        return Pair(image.stem, image, second, self.root / folder / self.truth / image.name)


class Kitti2012(Kitti2015):
    """The same of 2012, static scenes."""

    images = "colored_0"
    marker = "training/colored_0/*_10.png"
    recalled = True
    published = {"train": 194}  # recalled, not read
