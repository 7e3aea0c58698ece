"""Pascal VOC 2012 segmentation (Everingham et al. 2010): 20 classes and background.

`<root>` is the folder `VOC2012`: `JPEGImages/*.jpg`, `SegmentationClass/*.png`, whose palette
indices are the classes and 255 the border, and `ImageSets/Segmentation/<split>.txt`, one name per
line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepsight.data.decoding.annotations import read_text
from stepsight.data.decoding.images import read_image
from stepsight.data.decoding.labels import read_classes
from stepsight.data.files import FileSource, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

LISTS = "ImageSets/Segmentation"
SPLITS = ("train", "val")
CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()


class Voc(FileSource[str]):
    """Photographs with 21 classes. Splits: train, val, trainval, all (train and val)."""

    offers = frozenset({"labels"})
    published = {"train": 1464, "val": 1449, "trainval": 2913, "all": 2913}
    classes = tuple(CLASSES)
    marker = f"{LISTS}/*.txt"

    def find(self, split: str) -> list[str]:
        names = (split,) if split == "trainval" else SPLITS
        lists = {name: self.root / LISTS / f"{name}.txt" for name in names}
        return self.pick_file(split, lists, lambda _, path: read_names(path))

    def needed(self, entry: str) -> Iterable[Path]:
        folders = ["JPEGImages"] + ["SegmentationClass"] * ("labels" in self.quantities)
        return [self._path(entry, folder) for folder in folders]

    def read(self, entry: str) -> Sample:
        picture, labelled = self._path(entry, "JPEGImages"), self._path(entry, "SegmentationClass")
        sample = Sample(image=read_image(picture, upright=False), key=entry, source=self.name)
        if "labels" in self.quantities:
            sample.labels = read_classes(labelled, len(self.classes))
            check_shapes([picture, labelled], sample.image, sample.labels)
        return sample

    def _path(self, name: str, folder: str) -> Path:
        return self.root / folder / (name + (".jpg" if folder == "JPEGImages" else ".png"))


def read_names(path: Path) -> list[str]:
    """The names in a list file, one per line. Raises `DataFormatError` naming the line."""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        if len(line.split()) != 1:
            raise DataFormatError(f"{path}, line {number}: expected one name, found {line!r}.")
    return [line.strip() for line in lines]
