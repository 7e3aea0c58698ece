"""DA-2K's pairs of points, written here by the published form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stepsight.data.readers.config import Da2kSettings
from stepsight.data.readers.depth.da2k import Da2k
from stepsight.errors import DataFormatError, UserError

PAIR = {"point1": [0, 4], "point2": [2, 1], "closer_point": "point1"}
SWAPPED = {"point1": [1, 0], "point2": [2, 3], "closer_point": "point2"}
IMAGES = {
    "images/indoor/a.png": [PAIR, SWAPPED],
    "images/transparent_reflective_3.png": [PAIR],
    "images/b.png": [PAIR],
}


@pytest.fixture
def root(tmp_path, write_png):
    for name in IMAGES:
        write_png(tmp_path / name, np.full((3, 5, 3), 90, np.uint8))
    (tmp_path / "annotations.json").write_text(json.dumps(IMAGES))
    return tmp_path


def open_at(root, split="all", quantities=None):
    return Da2k(Da2kSettings(root=str(root)), split, quantities)


def test_the_closer_point_comes_first(root):
    sample = open_at(root)[0]
    assert sample.order.dtype == torch.int64
    assert sample.order.tolist() == [[0, 4, 2, 1], [2, 3, 1, 0]]
    assert sample.key == "images/indoor/a" and sample.source == "da2k"


def test_splits_are_kinds_of_scenes(root):
    for split, key in {
        "indoor": "images/indoor/a",
        "transparent_reflective": "images/transparent_reflective_3",
        "other": "images/b",
    }.items():
        assert [sample.key for sample in (open_at(root, split)[0],)] == [key]
    assert len(open_at(root)) == 3
    with pytest.raises(UserError, match="no split 'aerial' .* all 3"):
        open_at(root, "aerial")


def annotate(root, images):
    (root / "annotations.json").write_text(
        images if isinstance(images, str) else json.dumps(images)
    )


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        {},
        None,
        [None],
        [PAIR | {"closer_point": "point3"}],
        [PAIR | {"closer_point": ["point1"]}],
        [PAIR | {"point2": [1]}],
        [PAIR | {"point2": [1, 2.5]}],
        [PAIR | {"point2": [1, -1]}],
        [PAIR | {"point2": [True, 1]}],
        [PAIR | {"point1": [10**30, 0]}],
        [{"point1": [0, 0], "closer_point": "point1"}],
    ],
)
def test_malformed_annotations(root, pairs):
    annotate(root, {"images/b.png": pairs})
    with pytest.raises(DataFormatError, match="annotations.json, images/b.png: expected a list of"):
        open_at(root)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "\x00"])
def test_malformed_json(root, text):
    annotate(root, text)
    with pytest.raises(DataFormatError, match="annotations.json: "):
        open_at(root)


def test_no_image_at_all(root):
    annotate(root, {})
    with pytest.raises(UserError, match="split 'all' .* is empty"):
        open_at(root)


@pytest.mark.parametrize("point", [[3, 0], [0, 5]])
def test_points_outside_the_image(root, point):
    annotate(root, {"images/b.png": [PAIR | {"point2": point}]})
    with pytest.raises(DataFormatError, match="b.png: a point lies outside its 3 x 5 pixels"):
        open_at(root)[0]
    assert open_at(root, quantities=frozenset())[0].order is None


def test_missing_and_damaged_image(root):
    path = root / "images/b.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataFormatError, match="b.png: damaged PNG"):
        open_at(root, "other")[0]
    path.unlink()
    with pytest.raises(UserError, match="b.png: cannot be read"):
        open_at(root, "other")[0]
