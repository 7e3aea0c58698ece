"""pix2gestalt's occlusion data (Ozguroglu et al. 2024): an object behind a pasted occluder.

`<root>/occlusion/{id}_occlusion.png` RGB, `visible_object_mask/{id}_visible_mask.png` and
`whole_mask/{id}_whole_mask.png` 8-bit grey, inside above 127. Files are paired by id, because
pairing by position shifts everything after one missing file.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.data.images import read_image, read_mask
from stepsight.types import Sample

PARTS = {  # folder: what follows the id
    "occlusion": "_occlusion.png",
    "visible_object_mask": "_visible_mask.png",
    "whole_mask": "_whole_mask.png",
}
VAL_SHARE = 100  # one in so many, rounded up, from the end of the sorted ids


class Pix2Gestalt(FileSource[str]):
    """Visible and whole masks of one object an image.

    Splits: val (the last 1 % of the sorted ids, rounded up), train (the others), all.
    """

    offers = frozenset({"amodal"})
    marker = "occlusion/*_occlusion.png"

    def find(self, split: str) -> list[str]:
        found = [self._ids(folder, suffix) for folder, suffix in PARTS.items()]
        ids = sorted(set.union(*found))
        for folder, present in zip(PARTS, found):
            self.refuse_missing([self._path(name, folder) for name in ids if name not in present])
        trained = len(ids) - math.ceil(len(ids) / VAL_SHARE)
        return self.pick(split, {"train": ids[:trained], "val": ids[trained:]})

    def read(self, entry: str) -> Sample:
        paths = [self._path(entry, folder) for folder in PARTS]
        sample = Sample(image=read_image(paths[0]), key=entry, source=self.name)
        if "amodal" in self.quantities:
            modal, whole = read_mask(paths[1]), read_mask(paths[2])
            check_shapes(paths, sample.image, modal, whole)
            check_any(modal, paths[1], "no visible pixel")
            sample.modal, sample.amodal = modal, whole | modal
            sample.amodal_valid = torch.ones_like(modal)
        return sample

    def _path(self, name: str, folder: str) -> Path:
        return self.root / folder / f"{name}{PARTS[folder]}"

    def _ids(self, folder: str, suffix: str) -> set[str]:
        return {p.name.removesuffix(suffix) for p in (self.root / folder).glob(f"*{suffix}")}
