"""Semantic amodal segmentation (Zhu et al. 2017): COCO-A, BSDS-A, and MP3D-Amodal in their format.

`<root>/annotations/COCO_amodal_<split>2014.json` holds `images` and `annotations`; an annotation is
one annotator's list of `regions` of one image. A region's `segmentation` is the whole object, one
flat polygon (run lengths in MP3D-Amodal); its `visible_mask`, run lengths, is there only if
something hides a part (XiaohangZhan/deocclusion, `datasets/reader.py`). The pictures are COCO's, in
`<root>/train2014/`, ... by their names.

A folder of pictures, each with a JSON file of its annotation beside it (`1.jpg`, `1.json`), is read
as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepsight.data.decoding.annotations import annotation_records, field, read_json, stem
from stepsight.data.decoding.images import image_size
from stepsight.data.readers.masks.amodal import AmodalSource, Outline, visible
from stepsight.errors import DataFormatError


class Cocoa(AmodalSource):
    """COCO-A: objects, one per sample, things and stuff. Splits: train, val, test, all.

    Pictures with a JSON file beside them have split `all` alone.
    """

    marker = "annotations/COCO_amodal_*2014.json"
    files = {
        split: f"annotations/COCO_amodal_{split}2014.json" for split in ("train", "val", "test")
    }

    def survey(self, root: Path, split: str) -> None:
        self._pictures = pictures_with_json(root)
        if self._pictures:
            self.marker = "*.json"

    def find(self, split: str) -> list[Outline]:
        if not self._pictures:
            return super().find(split)
        outlines = (outline for path in self._pictures for outline in _regions_beside(path))
        return self.pick(split, {"all": visible(outlines)})

    def picture(self, split: str, name: str) -> Path:
        """Where a picture of a split is. COCO's names say which folder: COCO_val2014_....jpg."""
        parts = name.split("_")
        return self.root / (parts[1] if len(parts) > 2 else f"{split}2014") / name

    def outlines(self, split: str, path: Path) -> Iterator[Outline]:
        records = list(annotation_records(read_json(path), path))
        annotators, seen = Counter(image["id"] for _, image, _ in records), Counter()
        for record, image, where in records:
            seen[image["id"]] += 1
            key = stem(image["file_name"], where)
            if annotators[image["id"]] > 1:
                key += f"/annotator {seen[image['id']]}"
            size = (image["height"], image["width"])
            yield from _outlines(record, key, self.picture(split, image["file_name"]), size, where)


class BsdsAmodal(Cocoa):
    """BSDS-A: several annotators per image, named in the key. Splits: train, val, test, all.

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
    pictures = (path.with_suffix(".jpg") for path in folder.glob("*.json"))
    return sorted(path for path in pictures if path.is_file())


def _regions_beside(picture: Path) -> Iterator[Outline]:
    path = picture.with_suffix(".json")
    return _outlines(
        read_json(path), picture.stem, picture, image_size(picture, upright=False), path
    )


def _outlines(
    record: Any, key: str, picture: Path, size: tuple[int, int], where: object
) -> Iterator[Outline]:
    """The regions of an annotation, numbered from 1."""
    for number, region in enumerate(field(record, "regions", list, where), 1):
        place = f"{where}, region {number}"
        if not isinstance(region, dict) or "segmentation" not in region:
            raise DataFormatError(f"{place}: 'segmentation' is missing.")
        visible = region.get("visible_mask")
        yield Outline(f"{key}/{number}", picture, size, region["segmentation"], visible, place)
