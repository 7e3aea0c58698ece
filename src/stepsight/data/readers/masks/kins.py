"""KINS (Qi et al. 2019): amodal instances on the pictures of KITTI's object benchmark.

`<root>/instances_train.json` over `<root>/training/image_2/*.png`, `instances_val.json` over
`testing/image_2`. An annotation's `segmentation` is the whole object, polygons or run lengths, and
`inmodal_seg` its visible part, run lengths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stepsight.data.decoding.annotations import annotation_records, field, read_json
from stepsight.data.readers.masks.amodal import AmodalSource, Outline
from stepsight.errors import DataFormatError

FOLDERS = {"train": "training", "val": "testing"}  # KITTI's names; both number from 000000


class Kins(AmodalSource):
    """Objects of streets, one per sample. Splits: train, val, all."""

    marker = "instances_*.json"
    files = {split: f"instances_{split}.json" for split in FOLDERS}

    def outlines(self, split: str, path: Path) -> Iterator[Outline]:
        seen = Counter()
        for record, image, where in annotation_records(read_json(path), path):
            if "segmentation" not in record:
                raise DataFormatError(f"{where}: 'segmentation' is missing.")
            seen[image["id"]] += 1
            name = image["file_name"]
            yield Outline(
                key=f"{split}/{Path(name).stem}/{seen[image['id']]}",
                image=self.root / FOLDERS[split] / "image_2" / name,
                size=(image["height"], image["width"]),
                amodal=record["segmentation"],
                visible=field(record, "inmodal_seg", dict, where),
                where=where,
            )
