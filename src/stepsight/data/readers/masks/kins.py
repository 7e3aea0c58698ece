"""KINS (Qi et al. 2019): amodal instances on the pictures of KITTI's object benchmark.

`<root>/instances_train.json` over `<root>/training/image_2/*.png`, `instances_val.json` over
`testing/image_2`. An annotation's `segmentation` is the whole object, polygons or run lengths, and
`inmodal_seg` its visible part, run lengths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stepsight.data.decoding.annotations import field, image_records, read_json
from stepsight.data.readers.masks.amodal import AmodalSource, Outline
from stepsight.errors import DataFormatError

FOLDERS = {"train": "training", "val": "testing"}  # KITTI's names; both number from 000000


class Kins(AmodalSource):
    """An object of a street a sample. Splits: train, val, all."""

    marker = "instances_*.json"

    def find(self, split: str) -> list[Outline]:
        files = {name: self.root / f"instances_{name}.json" for name in FOLDERS}
        present = {name: path for name, path in files.items() if path.is_file()}
        chosen = [split] if split in present else present
        found = {name: list(self._instances(name, present[name])) for name in chosen}
        return self.pick(split, {name: self.visible_ones(part) for name, part in found.items()})

    def _instances(self, split: str, path: Path) -> Iterator[Outline]:
        annotations = read_json(path)
        images = image_records(annotations, path)
        seen = Counter()
        for number, record in enumerate(field(annotations, "annotations", list, path)):
            where = f"{path}, annotation {number}"
            image = images.get(field(record, "image_id", int, where))
            if image is None or "segmentation" not in record:
                raise DataFormatError(f"{where}: its image or its 'segmentation' is missing.")
            seen[record["image_id"]] += 1
            name = image["file_name"]
            yield Outline(
                key=f"{split}/{Path(name).stem}/{seen[record['image_id']]}",
                image=self.root / FOLDERS[split] / "image_2" / name,
                size=(image["height"], image["width"]),
                amodal=record["segmentation"],
                visible=field(record, "inmodal_seg", dict, where),
                where=where,
            )
