"""COCO panoptic: files written here in the official layout, and panopticapi's real sample."""

from __future__ import annotations

import json

import numpy as np
import pytest

import stepsight.data as data
from stepsight.errors import DataFormatError, UserError

PERSON, DOG, CROWD, SKY, OTHER = 7, 300, 70_000, 16_777_215, 256
IDS = np.array([[0, PERSON, DOG, SKY], [CROWD, OTHER, DOG, SKY]])
CATEGORIES = [
    {"id": 187, "name": "sky", "isthing": 0},
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 18, "name": "dog", "isthing": 1},
]


def segment(number, category, crowd=0):
    return {"id": number, "category_id": category, "iscrowd": crowd}


SEGMENTS = [
    segment(PERSON, 1),
    segment(SKY, 187),
    segment(CROWD, 1, 1),
    segment(DOG, 18),
    segment(OTHER, 1),
]


@pytest.fixture
def build(tmp_path, write_png, write_ppm):
    def write(ids=IDS, segments=SEGMENTS, categories=CATEGORIES, split="val", **changes):
        image = {"id": 42, "file_name": "000000000042.jpg", "height": 2, "width": 4}
        record = {"image_id": 42, "file_name": "000000000042.png", "segments_info": segments}
        content = {"images": [image], "annotations": [record], "categories": categories} | changes
        folder = tmp_path / f"annotations/panoptic_{split}2017"
        bytes_of = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        write_png(folder / "000000000042.png", bytes_of)
        folder.with_suffix(".json").write_text(json.dumps(content))
        write_ppm(tmp_path / f"{split}2017/000000000042.jpg", np.zeros((2, 4, 3), np.uint8))
        return tmp_path

    return write


def test_classes_and_instances(build):
    source = data.open("coco_panoptic", build(), split="val")
    sample = source[0]
    assert source.classes == ("person", "dog", "sky") and sample.key == "000000000042"
    assert sample.labels.tolist() == [[255, 0, 1, 2], [0, 0, 1, 2]]
    assert sample.instances.tolist() == [[0, 1, 1, 0], [-1, 2, 1, 0]]


def test_splits(build):
    build(split="train")
    root = build()
    assert len(data.open("coco_panoptic", root)) == 2
    assert len(data.open("coco_panoptic", root, split="train")) == 1
    with pytest.raises(UserError, match="no split 'test' .*train 1, val 1, all 2"):
        data.open("coco_panoptic", root, split="test")


def test_splits_of_different_categories_do_not_mix(build):
    build(split="train", categories=CATEGORIES[:2])
    with pytest.raises(DataFormatError, match="panoptic_val2017.json: has other categories"):
        data.open("coco_panoptic", build())


def test_missing_files(build):
    root = build()
    (root / "annotations/panoptic_val2017/000000000042.png").unlink()
    with pytest.raises(UserError, match="panoptic_val2017/000000000042.png is missing"):
        data.open("coco_panoptic", root)


LISTS = {
    "no images": ({"images": None}, "'images' is missing or not a list"),
    "no categories": ({"categories": []}, "0 categories, where 1 to 255 are read"),
    "bare category": ({"categories": [{"id": 1}]}, "category 0: 'name' is missing"),
    "unlisted image": ({"images": []}, "annotation 0: image 42 is not in the list"),
    "no segments": ({"segments": None}, "annotation 0: 'segments_info' is missing"),
    "empty": ({"annotations": []}, "split 'all' .* is empty"),
}


@pytest.mark.parametrize(("changes", "reason"), LISTS.values(), ids=LISTS.keys())
def test_malformed_lists(build, changes, reason):
    with pytest.raises(UserError, match=reason):
        data.open("coco_panoptic", build(**changes))


PIXELS = {
    "unlisted": ({"segments": SEGMENTS[1:]}, r"042.png: holds the segment 7, which .*val2017.json"),
    "absent": ({"segments": [*SEGMENTS, segment(9, 18)]}, "042.png: lacks the segment 9"),
    "twice": ({"segments": [*SEGMENTS, SEGMENTS[0]]}, "segment 7 of category 1 is listed twice"),
    "category": ({"segments": [segment(7, 99)]}, "segment 7 of category 99 .* unknown"),
    "no crowd": ({"segments": [{"id": 7, "category_id": 1}]}, "'iscrowd' is missing"),
    "void": ({"ids": np.zeros((2, 4), int), "segments": []}, "042.png: holds no labelled pixel"),
    "shape": ({"ids": IDS[:, :3]}, "042.png: 2 x 3 pixels, where its image has 2 x 4"),
}


@pytest.mark.parametrize(("changes", "reason"), PIXELS.values(), ids=PIXELS.keys())
def test_malformed_pixels(build, changes, reason):
    source = data.open("coco_panoptic", build(**changes))
    with pytest.raises(DataFormatError, match=reason):
        source[0]


@pytest.mark.parametrize("pixels", [np.ones((2, 4), np.uint8), np.ones((2, 4, 3), np.uint16)])
def test_wrong_kinds_of_png(build, write_png, pixels):
    root = build()
    path = write_png(root / "annotations/panoptic_val2017/000000000042.png", pixels)
    with pytest.raises(DataFormatError, match="042.png: .*where 8-bit RGB is expected"):
        data.open("coco_panoptic", root)[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="042.png: damaged PNG"):
        data.open("coco_panoptic", root)[0]


def test_real_files(real_samples, caplog):
    root = real_samples("coco_panoptic")
    source = data.open("coco_panoptic", root)
    assert len(source) == 1 and len(source.classes) == 133
    assert "images/000000439180.jpg is missing, left out" in caplog.text
    sample = source[0]
    assert sample.key == "000000142238" and sample.labels.shape == (427, 640)
    listed = json.loads((root / "panoptic_examples.json").read_text())["annotations"][0]
    areas = sorted(segment["area"] for segment in listed["segments_info"])
    known = sample.labels != 255
    pairs = (sample.labels * 1000 + sample.instances)[known].unique(return_counts=True)
    assert len(pairs[0]) == 18 and sorted(pairs[1].tolist()) == areas
    crowd = sample.instances == -1
    assert crowd.sum() == 24295 and source.classes[int(sample.labels[crowd][0])] == "person"
