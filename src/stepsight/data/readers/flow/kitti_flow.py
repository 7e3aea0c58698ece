"""KITTI's flow benchmarks of 2012 (Geiger et al.) and 2015 (Menze and Geiger): sparse flow.

`<root>/training/<images>/000000_10.png` and `000000_11.png`, where `<images>` is `colored_0` in
2012 and `image_2` in 2015; `<root>/training/flow_occ/000000_10.png` has the flow of all measured
pixels, `flow_noc` of those that stay in sight; `<root>/testing/` has images alone.
"""

from __future__ import annotations

from typing import ClassVar

from stepsight.data.decoding.formats import read_kitti_flow
from stepsight.data.files import check_shapes
from stepsight.data.readers.config import Kitti2012Settings, Kitti2015Settings
from stepsight.data.readers.flow.pairs import Pair, PairSource
from stepsight.types import Sample


class Kitti2015(PairSource):
    """Sparse flow in pixels, never filled in between; occlusions where both kinds are there.

    Splits: train (and all, the same); test has pairs of images and no truth.
    """

    settings: Kitti2012Settings | Kitti2015Settings
    images: ClassVar[str] = "image_2"
    marker = "training/image_2/*_10.png"
    recalled = True
    splits = {"train": "training"}
    unscored = {"test": "testing"}
    decode_flow = staticmethod(read_kitti_flow)
    published = {"train": 200}  # recalled, not read

    @property
    def truth(self) -> str:
        return "flow_occ" if self.settings.occluded else "flow_noc"

    def pairs(self, folder: str) -> list[Pair]:
        base = self.root / folder
        return [
            Pair(i.stem, i, i.with_name(f"{i.stem[:-3]}_11.png"), base / self.truth / i.name)
            for i in sorted((base / self.images).glob("*_10.png"))
        ]

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        in_sight = self.root / "training" / "flow_noc"
        if sample.flow_valid is not None and self.truth == "flow_occ" and in_sight.is_dir():
            path = in_sight / entry.image.name
            _, seen = read_kitti_flow(path)
            check_shapes([entry.image, path], sample.image, seen)
            sample.occluded = sample.flow_valid & ~seen
        return sample


class Kitti2012(Kitti2015):
    """The same of 2012, static scenes."""

    images = "colored_0"
    marker = "training/colored_0/*_10.png"
    published = {"train": 194}  # recalled, not read
