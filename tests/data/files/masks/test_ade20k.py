"""ADE20K SceneParse150: folders written here, and real ones."""

from __future__ import annotations

import numpy as np
import pytest

import stepsight.data as data
from stepsight.errors import DataFormatError, UserError

STORED = np.array([[0, 1, 2], [150, 18, 0]], np.uint8)
PICTURE, LABELS = "images/{}/ADE_{}_0000000{}.jpg", "annotations/{}/ADE_{}_0000000{}.png"


@pytest.fixture
def build(tmp_path, write_png, write_ppm):
    def write(stored=STORED, counts=(("training", "train", 2), ("validation", "val", 1))):
        for folder, name, count in counts:
            for number in range(count):
                image = np.full((2, 3, 3), number, np.uint8)
                write_ppm(tmp_path / PICTURE.format(folder, name, number), image)
                write_png(tmp_path / LABELS.format(folder, name, number), stored)
        return tmp_path

    return write


def test_labels_start_at_zero_and_other_is_ignored(build):
    source = data.open("ade20k", build(), split="val")
    sample = source[0]
    assert sample.labels.tolist() == [[255, 0, 1], [149, 17, 255]]
    assert sample.key == "validation/ADE_val_00000000"
    names = [source.classes[n] for n in (0, 1, 149, 17)]
    assert names == ["wall", "building", "flag", "plant"]
    assert len(source.classes) == len(set(source.classes)) == 150


def test_splits(build):
    root = build()
    assert [len(data.open("ade20k", root, split=s)) for s in ("train", "val", "all")] == [2, 1, 3]
    keys = [sample.key for sample in data.open("ade20k", root)]
    assert keys == sorted(keys) and len(set(keys)) == 3
    with pytest.raises(UserError, match="no split 'test' .*train 2, val 1, all 3"):
        data.open("ade20k", root, split="test")


def test_a_missing_annotation(build):
    root = build()
    (root / LABELS.format("training", "train", 1)).unlink()
    with pytest.raises(UserError, match=r"training/ADE_train_00000001.png is missing"):
        data.open("ade20k", root)
    assert len(data.open("ade20k", root, split="val")) == 1


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (np.full((2, 3), 151, np.uint8), "holds the value 151, where 150 is the largest"),
        (np.zeros((2, 3), np.uint8), "no labelled pixel"),
        (STORED[:1], "1 x 3 pixels, where its image has 2 x 3"),
        (STORED.astype(np.uint16), "16-bit"),
        (np.ones((2, 3, 3), np.uint8), "mode RGB"),
    ],
)
def test_malformed_annotations(build, stored, reason):
    source = data.open("ade20k", build(stored), split="val")
    with pytest.raises(DataFormatError, match=f"ADE_val_00000000.png: .*{reason}"):
        source[0]


def test_truncated_annotation(build):
    root = build()
    path = root / LABELS.format("validation", "val", 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataFormatError, match="ADE_val_00000000.png: damaged PNG"):
        data.open("ade20k", root, split="val")[0]


def test_real_files(real_samples):
    source = data.open("ade20k", real_samples("ade20k"), split="val")
    first = source[0]
    assert len(source) == 2 and first.image.shape == (3, 512, 683)
    stored = (first.labels + 1) % 256  # as in the file
    assert stored.unique().tolist() == [0, 1, 2, 3, 5, 7, 10, 18]
    assert {source.classes[label] for label in first.labels.unique()[:-1]} >= {"sky", "building"}
