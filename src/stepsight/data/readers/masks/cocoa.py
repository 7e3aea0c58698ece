"""Semantic amodal segmentation (Zhu et al. 2017): COCO-A, BSDS-A, and MP3D-Amodal in their format.

`<root>/annotations/COCO_amodal_<split>2014.json` holds `images` and `annotations`; an annotation is
one annotator's list of `regions` of one image. A region's `segmentation` is the whole object, one
flat polygon (run lengths in MP3D-Amodal); its `visible_mask`, run lengths, is there only if
something hides a part (XiaohangZhan/deocclusion, `datasets/reader.py`). The pictures are COCO's, in
`<root>/train2014/`, ... by their names.

A folder of pictures, each with a JSON file of one annotation beside it (`1.jpg`, `1.json`), is read
as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from stepsight.data.decoding.annotations import field, image_records, read_json
from stepsight.data.decoding.images import image_size
from stepsight.data.files import root_of
from stepsight.data.readers.config import FileSettings
from stepsight.data.readers.masks.amodal import AmodalSource, Outline
from stepsight.errors import DataFormatError


class Cocoa(AmodalSource):
    """COCO-A: an object a sample, things and stuff. Splits: train, val, test, all.

    Pictures with a JSON file beside them have split `all` alone.
    """

    marker = "annotations/COCO_amodal_*2014.json"
    files: ClassVar[dict[str, str]] = {  # split: its annotations
        split: f"annotations/COCO_amodal_{split}2014.json" for split in ("train", "val", "test")
    }

    def __init__(
        self, settings: FileSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        self._pairs = pictures_with_json(root_of(settings.root))
        if self._pairs:
            self.marker = "*.json"
        super().__init__(settings, split, quantities)

    def find(self, split: str) -> list[Outline]:
        if self._pairs:
            found = [outline for pair in self._pairs for outline in _regions_beside(pair)]
            return self.pick(split, {"all": self.visible_ones(found)})
        present = {name: file for name, file in self.files.items() if (self.root / file).is_file()}
        chosen = [split] if split in present else present
        found = {name: list(self._regions(name, self.root / present[name])) for name in chosen}
        return self.pick(split, {name: self.visible_ones(part) for name, part in found.items()})

    def picture(self, split: str, name: str) -> Path:
        """Where a picture of a split is. COCO's names say which folder: COCO_val2014_....jpg."""
        parts = name.split("_")
        return self.root / (parts[1] if len(parts) > 2 else f"{split}2014") / name

    def _regions(self, split: str, path: Path) -> Iterator[Outline]:
        annotations = read_json(path)
        images = image_records(annotations, path)
        records = field(annotations, "annotations", list, path)
        places = [f"{path}, annotation {number}" for number in range(len(records))]
        ids = [field(record, "image_id", int, place) for record, place in zip(records, places)]
        annotators, seen = Counter(ids), Counter()
        for record, number, where in zip(records, ids, places):
            if number not in images:
                raise DataFormatError(f"{where}: image {number} is not in the list.")
            image = images[number]
            seen[number] += 1
            key = str(Path(image["file_name"]).with_suffix(""))
            if annotators[number] > 1:
                key += f"/annotator {seen[number]}"
            size = (image["height"], image["width"])
            yield from _outlines(record, key, self.picture(split, image["file_name"]), size, where)


class BsdsAmodal(Cocoa):
    """BSDS-A: several annotators an image, told apart in the key. Splits: train, val, test, all.

    `<root>/annotations/BSDS_amodal_<split>.json`, `<root>/images/<split>/*.jpg` as BSDS500 has it.
    """

    marker = "annotations/BSDS_amodal_*.json"
    files = {split: f"annotations/BSDS_amodal_{split}.json" for split in ("train", "val", "test")}

    def picture(self, split: str, name: str) -> Path:
        return self.root / "images" / split / name


class Mp3dAmodal(Cocoa):
    """MP3D-Amodal (Zhan et al. 2024): objects of rooms. Splits: train, eval, all.

    `<root>/annotations/MP3D_seleted_<split>_10.29.json`, the published pickle of that name [sic]
    rewritten as JSON, because no pickle is read here; `<root>/mp3d_<split>/` as unpacked.
    """

    marker = "annotations/MP3D_seleted_*_10.29.json"
    files = {split: f"annotations/MP3D_seleted_{split}_10.29.json" for split in ("train", "eval")}

    def picture(self, split: str, name: str) -> Path:
        return self.root / f"mp3d_{split}" / name


def pictures_with_json(folder: Path) -> list[Path]:
    """The JPEG pictures directly in a folder that have a JSON file of their name, sorted."""
    found = folder.glob("*.json") if folder.is_dir() else []
    pictures = (path.with_suffix(".jpg") for path in found)
    return sorted(path for path in pictures if path.is_file())


def _regions_beside(picture: Path) -> Iterator[Outline]:
    path = picture.with_suffix(".json")
    return _outlines(read_json(path), picture.stem, picture, image_size(picture), path)


def _outlines(
    record: Any, key: str, picture: Path, size: tuple[int, int], where: object
) -> Iterator[Outline]:
    """The regions of one annotation, numbered from 1."""
    for number, region in enumerate(field(record, "regions", list, where), 1):
        place = f"{where}, region {number}"
        if not isinstance(region, dict) or "segmentation" not in region:
            raise DataFormatError(f"{place}: 'segmentation' is missing.")
        visible = region.get("visible_mask")
        yield Outline(f"{key}/{number}", picture, size, region["segmentation"], visible, place)
