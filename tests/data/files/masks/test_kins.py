"""KINS: annotation files written here; no real ones are at hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

import stepsight.data as data
from stepsight.errors import DataFormatError, UserError

pytest.importorskip("pycocotools")

HEIGHT, WIDTH = 4, 6
RIGHT = [3, 0, 6, 0, 6, 4, 3, 4]  # columns 3 to 5
COLUMN = {"size": [HEIGHT, WIDTH], "counts": "<48"}  # 12 outside, column 3, 8 outside
NOTHING = {"size": [HEIGHT, WIDTH], "counts": "h0"}


def instance(segmentation, visible=COLUMN):
    return {"image_id": 5, "category_id": 4, "segmentation": segmentation, "inmodal_seg": visible}


@pytest.fixture
def build(tmp_path, write_png):
    def write(instances, split="train"):
        image = {"id": 5, "file_name": "000000.png", "height": HEIGHT, "width": WIDTH}
        content = {"images": [image], "annotations": instances, "categories": []}
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
        folder = {"train": "training", "val": "testing"}[split]
        picture = tmp_path / folder / "image_2/000000.png"
        write_png(picture, np.full((HEIGHT, WIDTH, 3), len(instances), np.uint8))
        return tmp_path

    return write


def test_polygons_and_run_lengths(build):
    whole = {"size": [HEIGHT, WIDTH], "counts": [12, 12]}
    source = data.open("kins", build([instance([RIGHT]), instance(whole)]), split="train")
    assert [sample.key for sample in source] == ["train/000000/1", "train/000000/2"]
    for sample in source:
        assert sample.amodal[0, :, 3:].all() and sample.amodal.sum() == 12
        assert sample.modal[0, :, 3].all() and sample.modal.sum() == 4
        assert sample.amodal_valid.all()


def test_splits_share_names_but_not_keys(build):
    build([instance([RIGHT])])
    root = build([instance([RIGHT]), instance([RIGHT], NOTHING), instance([RIGHT])], "val")
    source = data.open("kins", root)
    assert [s.key for s in source] == ["train/000000/1", "val/000000/1", "val/000000/3"]
    assert [int(s.image.max()) for s in source] == [1, 3, 3]
    with pytest.raises(UserError, match=r"no split 'test' .*train 1, val 2"):
        data.open("kins", root, split="test")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (instance([RIGHT], None), "annotation 0: 'inmodal_seg' is missing"),
        (instance([RIGHT], [RIGHT]), "annotation 0: 'inmodal_seg' is missing or not an object"),
        (instance([RIGHT]) | {"image_id": 6}, "annotation 0: image 6 is not in the list"),
        ({"image_id": 5}, "annotation 0: 'segmentation' is missing"),
        (
            instance([RIGHT]) | {"image_id": "5"},
            "annotation 0: 'image_id' is missing or not a whole number",
        ),
        (instance([RIGHT[:5]]), "annotation 0: a polygon is not a list"),
        (instance([RIGHT], {"size": [4, 6], "counts": "<4"}), "annotation 0: .*cover 16 of 24"),
    ],
)
def test_malformed_instances(build, broken, reason):
    with pytest.raises(DataFormatError, match=f"instances_train.json, {reason}"):
        data.open("kins", build([broken]))[0]


def test_missing_and_empty(build):
    root = build([instance([RIGHT])])
    (root / "training/image_2/000000.png").unlink()
    with pytest.raises(UserError, match="image_2/000000.png is missing"):
        data.open("kins", root)
    with pytest.raises(UserError, match="split 'all' in .* is empty"):
        data.open("kins", build([]))
