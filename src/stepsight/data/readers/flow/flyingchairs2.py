"""FlyingChairs2 (Ilg et al. 2018): FlyingChairs rendered again, with flow both ways and occlusions.

`<root>/{train,val}/0000000-img_0.png, -img_1.png, -flow_01.flo, -flow_10.flo, -occ_01.png,
-occ_10.png, ...`; `01` leads from the first image to the second, `10` back. An occlusion mask is
white where the pixel is hidden in the other image.
"""

from __future__ import annotations

from pathlib import Path

from stepsight.data.decoding.formats import read_known_flo
from stepsight.data.readers.config import FlyingChairs2Settings
from stepsight.data.readers.flow.pairs import Pair, PairSource
from stepsight.types import Sample

DIRECTIONS = {"forward": ("01",), "backward": ("10",), "both": ("01", "10")}


class FlyingChairs2(PairSource):
    """Chairs before photographs; flow in pixels, occlusions where their files are there.

    Splits: train, val, all.
    """

    settings: FlyingChairs2Settings
    marker = "*/*-img_0.png"
    recalled = True
    splits = {"train": "train", "val": "val"}
    decode_flow = staticmethod(read_known_flo)

    def find(self, split: str) -> list[Pair]:
        self._codes = DIRECTIONS[self.settings.direction]
        per_pair = len(self._codes)  # recalled, not read: the counts of FlyingChairs
        self.published = {"train": 22232 * per_pair, "val": 640 * per_pair}
        return super().find(split)

    def pairs(self, folder: str) -> list[Pair]:
        first = sorted((self.root / folder).glob("*-img_0.png"))
        return [_pair(path, code) for code in self._codes for path in first]

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        occlusion = self.root / f"{entry.key.replace('flow', 'occ')}.png"
        if "flow" in self.quantities and occlusion.is_file():
            sample.occluded = self.read_white(occlusion, sample, entry)
        return sample


def _pair(first: Path, code: str) -> Pair:
    """The pair of the number that `first`, its image 0, carries; `code` is `01` or `10`."""
    number = first.name.removesuffix("-img_0.png")
    image, second = (first.with_name(f"{number}-img_{index}.png") for index in code)
    key = f"{first.parent.name}/{number}-flow_{code}"
    return Pair(key, image, second, first.with_name(f"{number}-flow_{code}.flo"))
