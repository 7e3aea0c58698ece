"""COCO panoptic (Kirillov et al. 2019): every pixel a segment, every segment a category.

`<root>/annotations/panoptic_<split>2017.json` with its PNG files in the folder of that name beside
it, over `<root>/<split>2017/*.jpg`. A pixel's segment is R + 256 G + 65536 B, 0 is void; the JSON
gives each segment's category and whether it is a crowd, and the categories in use.

The sample that panopticapi ships, `panoptic_examples.json` with `panoptic/` and `images/`, is read
as well: split `all`, as far as its pictures are there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsight.data.decoding.annotations import annotation_records, field, read_json
from stepsight.data.decoding.images import read_ids, read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import IGNORE, Sample

OFFICIAL = "annotations/panoptic_*2017.json"
EXAMPLES = "panoptic_examples.json"
SPLITS = ("train", "val")


class Annotated(NamedTuple):
    key: str
    image: Path
    panoptic: Path
    segments: list[Any]  # records of the JSON file, checked when read
    where: str  # annotation file and place in it, for errors


class CocoPanoptic(FileSource[Annotated]):
    """Photographs with things, their instances, and stuff. Splits: train, val, all.

    The classes are the JSON file's categories in the order of their ids, numbered from 0.
    """

    offers = frozenset({"labels", "instances"})
    published = {"train": 118287, "val": 5000}  # recalled, not counted here
    marker = OFFICIAL
    recalled = True

    def survey(self, root: Path, split: str) -> None:
        if (root / EXAMPLES).is_file():
            self.marker = EXAMPLES

    def find(self, split: str) -> list[Annotated]:
        if self.marker == EXAMPLES:
            listed = self._entries(self.root / EXAMPLES, "images", "panoptic")
            return self.pick(split, {"all": _present(listed, self.name)})
        files = {name: self.root / OFFICIAL.replace("*", name) for name in SPLITS}
        return self.pick_file(
            split,
            files,
            lambda name, path: self._entries(path, f"{name}2017", f"annotations/{path.stem}"),
        )

    def needed(self, entry: Annotated) -> Iterable[Path]:
        return [entry.image, entry.panoptic] if self.quantities else [entry.image]

    def read(self, entry: Annotated) -> Sample:
        sample = Sample(
            image=read_image(entry.image, upright=False), key=entry.key, source=self.name
        )
        if self.quantities:
            ids = read_ids(entry.panoptic)[0]
            check_shapes([entry.image, entry.panoptic], sample.image, ids)
            check_any(ids != 0, entry.panoptic, "no labelled pixel")
            labels, instances = self._split_ids(ids, entry)
            sample.labels = labels
            sample.instances = instances if "instances" in self.quantities else None
        return sample

    def _entries(self, path: Path, images: str, panoptic: str) -> list[Annotated]:
        annotations = read_json(path)
        self._read_categories(annotations, path)
        entries = []
        for record, picture, where in annotation_records(annotations, path):
            image = self.root / images / picture["file_name"]
            ids = self.root / panoptic / field(record, "file_name", str, where)
            segments = field(record, "segments_info", list, where)
            entries.append(Annotated(image.stem, image, ids, segments, where))
        return entries

    def _read_categories(self, annotations: Any, path: Path) -> None:
        records = {}
        for number, record in enumerate(field(annotations, "categories", list, path)):
            where = f"{path}, category {number}"
            name, thing = field(record, "name", str, where), field(record, "isthing", int, where)
            records[field(record, "id", int, where)] = (name, bool(thing))
        if not 0 < len(records) <= IGNORE:
            raise DataFormatError(f"{path}: {len(records)} categories, where 1 to 255 are read.")
        ordered = sorted(records)
        names = tuple(records[number][0] for number in ordered)
        if self.classes not in ((), names):
            raise DataFormatError(f"{path}: has other categories than the split before it.")
        self.classes = names
        self.places = {number: place for place, number in enumerate(ordered)}
        self.things = {number for number in ordered if records[number][1]}

    def _split_ids(self, ids: Tensor, entry: Annotated) -> tuple[Tensor, Tensor]:
        """Segment ids "h w" -> labels and instance numbers, int64 "h w" each."""
        table = {0: (IGNORE, 0)} | self._segments(entry)
        unique, inverse = torch.unique(ids, return_inverse=True)
        values = unique.tolist()
        if unlisted := sorted(set(values) - set(table)):
            reason = f"holds the segment {unlisted[0]}, which {entry.where} does not list"
            raise DataFormatError(f"{entry.panoptic}: {reason}.")
        if absent := sorted(set(table) - set(values) - {0}):
            reason = f"lacks the segment {absent[0]}, which {entry.where} lists"
            raise DataFormatError(f"{entry.panoptic}: {reason}.")
        columns = torch.tensor([table[value] for value in values])
        return columns[inverse, 0], columns[inverse, 1]

    def _segments(self, entry: Annotated) -> dict[int, tuple[int, int]]:
        """Segment id: class, instance number (counted within the class; 0 stuff, -1 a crowd)."""
        segments: dict[int, tuple[int, int]] = {}
        seen = Counter()
        for record in entry.segments:
            number = field(record, "id", int, entry.where)
            category = field(record, "category_id", int, entry.where)
            if category not in self.places or number in segments or number < 1:
                reason = f"segment {number} of category {category} is listed twice or unknown"
                raise DataFormatError(f"{entry.where}: {reason}.")
            crowd = field(record, "iscrowd", int, entry.where)
            countable = category in self.things and not crowd
            seen[category] += countable
            instance = seen[category] if countable else -bool(crowd)
            segments[number] = self.places[category], instance
        return segments


def _present(listed: list[Annotated], name: str) -> list[Annotated]:
    """The entries whose picture and PNG are there; the log says which are not."""
    present = [entry for entry in listed if entry.image.is_file() and entry.panoptic.is_file()]
    for entry in listed:
        if entry not in present:
            logging.getLogger(__name__).warning("%s: %s is missing, left out", name, entry.image)
    return present
