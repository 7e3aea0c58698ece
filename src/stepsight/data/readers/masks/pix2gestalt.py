"""pix2gestalt's occlusion data (Ozguroglu et al. 2024): an object behind a pasted occluder.

`<root>/occlusion/{id}_occlusion.png` RGB, `visible_object_mask/{id}_visible_mask.png` and
`whole_mask/{id}_whole_mask.png` 8-bit grey, inside above 127, and `whole/{id}_whole.png`, the
object unhidden, RGB on white with soft borders. Files are paired by id, because pairing by position
shifts everything after one missing file.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from stepsight.data.decoding.images import read_image, read_mask
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.types import Sample

PARTS = {  # folder: what follows the id
    "occlusion": "_occlusion.png",
    "visible_object_mask": "_visible_mask.png",
    "whole_mask": "_whole_mask.png",
    "whole": "_whole.png",
}
VAL_SHARE = 100  # one in so many, rounded up, from the end of the sorted ids


class Pix2Gestalt(FileSource[str]):
    """Visible and whole masks of one object an image, and its picture (which brings the masks).

    Splits: val (the last 1 % of the sorted ids, rounded up), train (the others), all.
    """

    offers = frozenset({"amodal", "whole"})
    marker = "occlusion/*_occlusion.png"

    def present(self) -> frozenset[str]:
        return self.offers if (self.root / "whole").is_dir() else frozenset({"amodal"})

    def find(self, split: str) -> list[str]:
        needed = [folder for folder in PARTS if folder != "whole" or "whole" in self.quantities]
        found = {folder: self._ids(folder) for folder in needed}
        ids = sorted(set.union(*found.values()))
        for folder, present in found.items():
            self.refuse_missing([self._path(name, folder) for name in ids if name not in present])
        trained = len(ids) - math.ceil(len(ids) / VAL_SHARE)
        return self.pick(split, {"train": ids[:trained], "val": ids[trained:]})

    def read(self, entry: str) -> Sample:
        paths = [self._path(entry, folder) for folder in PARTS]
        sample = Sample(image=read_image(paths[0]), key=entry, source=self.name)
        if self.quantities:
            modal, amodal = read_mask(paths[1]), read_mask(paths[2])
            check_shapes(paths, sample.image, modal, amodal)
            check_any(modal, paths[1], "no visible pixel")
            sample.modal, sample.amodal = modal, amodal | modal
            sample.amodal_valid = torch.ones_like(modal)
        if "whole" in self.quantities:
            sample.whole = read_image(paths[3])
            check_shapes([paths[0], paths[3]], sample.image, sample.whole)
        return sample

    def _path(self, name: str, folder: str) -> Path:
        return self.root / folder / f"{name}{PARTS[folder]}"

    def _ids(self, folder: str) -> set[str]:
        suffix = PARTS[folder]
        return {p.name.removesuffix(suffix) for p in (self.root / folder).glob(f"*{suffix}")}
