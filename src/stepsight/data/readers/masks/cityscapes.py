"""Cityscapes with fine annotations (Cordts et al. 2016): 19 classes, 8 of them with instances.

`<root>/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png`, and in `gtFine/<split>/<city>/`
`<frame>_gtFine_labelIds.png`, 8-bit grey, and `<frame>_gtFine_instanceIds.png`, 16-bit grey. The
files hold the set's own ids; the classes here are its `trainIds` (mcordts/cityscapesScripts,
`helpers/labels.py`). Instance number k of a class has the value 1000 id + k, and a group that was
not separated the id alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from stepsight.data.decoding.images import read_gray, read_image, read_labels
from stepsight.data.decoding.labels import CITYSCAPES_IDS, check_labels, lookup_table
from stepsight.data.files import FileSource, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

CLASSES = CITYSCAPES_IDS  # name: id in the files; the order is that of the trainIds
FIRST_THING = 11  # person; it and all after it have instances
TRAIN_IDS = lookup_table({number: place for place, number in enumerate(CLASSES.values())})
IMAGE, LABELS, INSTANCES = "leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds"


class Cityscapes(FileSource[str]):
    """Streets of cities, 1024 x 2048. Splits: train, val, all; the test set has no truth.

    An entry is `<split>/<city>/<frame>`.
    """

    offers = frozenset({"labels", "instances"})
    published = {"train": 2975, "val": 500}
    classes = tuple(CLASSES)
    marker = f"{IMAGE}/*/*/*_{IMAGE}.png"

    def find(self, split: str) -> list[str]:
        return self.pick(split, {name: self._frames(name) for name in ("train", "val")})

    def needed(self, entry: str) -> Iterable[Path]:
        kinds = [LABELS] * bool(self.quantities) + [INSTANCES] * ("instances" in self.quantities)
        return [self._path(entry, kind) for kind in kinds]

    def read(self, entry: str) -> Sample:
        picture, labelled, numbered = (self._path(entry, k) for k in (IMAGE, LABELS, INSTANCES))
        sample = Sample(image=read_image(picture), key=entry, source=self.name)
        if self.quantities:
            labels = TRAIN_IDS[read_labels(labelled)[0].long()]
            check_shapes([picture, labelled], sample.image, labels)
            check_labels(labels, len(self.classes), labelled)
            sample.labels = labels
            if "instances" in self.quantities:
                sample.instances = read_instances(numbered, labels)
        return sample

    def _path(self, entry: str, kind: str) -> Path:
        return self.root / kind.partition("_")[0] / f"{entry}_{kind}.png"

    def _frames(self, split: str) -> list[str]:
        base, suffix = self.root / IMAGE, f"_{IMAGE}.png"
        paths = (base / split).glob(f"*/*{suffix}")
        return sorted(path.relative_to(base).as_posix().removesuffix(suffix) for path in paths)


def read_instances(path: Path, labels: Tensor) -> Tensor:
    """Instance numbers int64 "h w" of the things among `labels`: k + 1, or -1 for a group.

    Raises `DataFormatError` unless the file is 16-bit grey and of the labels' size.
    """
    stored = read_gray(path)
    if stored.dtype != torch.uint16:
        raise DataFormatError(f"{path}: 8-bit grey, where instances need 16-bit grey.")
    check_shapes([path, path], labels, stored)
    numbers = stored[0].to(torch.int64)
    thing = (labels >= FIRST_THING) & (labels < len(CLASSES))
    return torch.where(thing, torch.where(numbers < 1000, -1, numbers % 1000 + 1), 0)
