"""pix2gestalt's occlusion data (Ozguroglu et al. 2024): an object behind a pasted occluder.

`<root>/occlusion/{id}_occlusion.png` RGB, `visible_object_mask/{id}_visible_mask.png` and
`whole_mask/{id}_whole_mask.png` 8-bit grey, inside above 127, and `whole/{id}_whole.png`, the
object unhidden, RGB on white with soft borders. Files are paired by id, because pairing by position
shifts everything after a missing file.
"""

from __future__ import annotations

import math

from stepsight.data.decoding.images import read_image
from stepsight.data.fields import with_values
from stepsight.data.files import FileSource, check_shapes
from stepsight.data.readers.masks.amodal import read_amodal
from stepsight.types import Sample

PARTS = {  # folder: what follows the id
    "occlusion": "_occlusion.png",
    "visible_object_mask": "_visible_mask.png",
    "whole_mask": "_whole_mask.png",
    "whole": "_whole.png",
}
VAL_SHARE = 100  # 1 in so many, rounded up, from the end of the sorted ids


class Pix2Gestalt(FileSource[str]):
    """Visible and whole masks of one object per image, and its picture (which brings the masks).

    Splits: val (the last 1 % of the sorted ids, rounded up), train (the others), all.
    """

    offers = frozenset({"amodal", "whole"})
    marker = "occlusion/*_occlusion.png"

    def present(self) -> frozenset[str]:
        return self.offers if (self.root / "whole").is_dir() else frozenset({"amodal"})

    def find(self, split: str) -> list[str]:
        needed = [folder for folder in PARTS if folder != "whole" or "whole" in self.quantities]
        ids = self.names_in([(folder, PARTS[folder]) for folder in needed])
        trained = len(ids) - math.ceil(len(ids) / VAL_SHARE)
        return self.pick(split, {"train": ids[:trained], "val": ids[trained:]})

    def read(self, entry: str) -> Sample:
        paths = [self.root / folder / f"{entry}{suffix}" for folder, suffix in PARTS.items()]
        sample = Sample(image=read_image(paths[0]), key=entry, source=self.name)
        if self.quantities:
            sample = with_values(sample, read_amodal(paths, sample.image))
        if "whole" in self.quantities:
            sample.whole = read_image(paths[3])
            check_shapes([paths[0], paths[3]], sample.image, sample.whole)
        return sample
