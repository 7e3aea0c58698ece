"""Cityscapes: format-exact folders written here; no real ones are at hand."""

from __future__ import annotations

import numpy as np
import pytest

import stepsight.data as data
from stepsight.data.readers.masks.cityscapes import CLASSES
from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError

# Ego vehicle, road, unlabelled, a car; another car, a group of people, a caravan, sky.
STORED = np.array([[1, 7, 0, 26], [26, 24, 29, 23]], np.uint8)
NUMBERED = np.array([[1, 7, 0, 26000], [26001, 24, 29000, 23]], np.uint16)
FRAME = "val/ulm/ulm_000000_000019"
LABELS, INSTANCES = (f"gtFine/{FRAME}_gtFine_{k}Ids.png" for k in ("label", "instance"))


@pytest.fixture
def build(tmp_path, write_png):
    def write(stored=STORED, numbered=NUMBERED):
        write_png(tmp_path / f"leftImg8bit/{FRAME}_leftImg8bit.png", np.zeros((2, 4, 3), np.uint8))
        write_png(tmp_path / LABELS, stored)
        write_png(tmp_path / INSTANCES, numbered)
        return tmp_path

    return write


def test_train_ids_and_instances(build):
    source = data.open("cityscapes", build())
    sample = source[0]
    assert sample.key == FRAME and source.classes[13] == "car" and len(source.classes) == 19
    assert sample.labels.tolist() == [[255, 0, 255, 13], [13, 11, 255, 10]]
    assert sample.instances.tolist() == [[0, 0, 0, 1], [2, -1, 0, 0]]


def test_the_table_of_train_ids():
    """Against mcordts/cityscapesScripts: the ids in the files, in the order of the trainIds."""
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert list(CLASSES.values()) == ids


def test_instances_are_read_for_those_who_ask(build):
    root = build()
    (root / INSTANCES).unlink()
    with pytest.raises(UserError, match="instanceIds.png is missing"):
        data.open("cityscapes", root)
    settings = settings_for("cityscapes", root=str(root))
    sample = open_source(settings, "val", frozenset({"labels"}))[0]
    assert sample.instances is None and sample.labels is not None
    assert open_source(settings, "val", frozenset())[0].labels is None


def test_order_and_splits(build, tmp_path, write_png):
    root = build()
    for frame in ("val/aachen/aachen_000001_000019", "train/bonn/bonn_000000_000019"):
        write_png(root / f"leftImg8bit/{frame}_leftImg8bit.png", np.zeros((2, 4, 3), np.uint8))
        write_png(root / f"gtFine/{frame}_gtFine_labelIds.png", STORED)
        write_png(root / f"gtFine/{frame}_gtFine_instanceIds.png", NUMBERED)
    keys = [sample.key for sample in data.open("cityscapes", root, split="val")]
    assert keys == ["val/aachen/aachen_000001_000019", FRAME]
    with pytest.raises(UserError, match="no split 'test' .*train 1, val 2, all 3"):
        data.open("cityscapes", root, split="test")


@pytest.mark.parametrize(
    ("stored", "numbered", "reason"),
    [
        (np.zeros((2, 4), np.uint8), NUMBERED, "labelIds.png: holds no labelled pixel"),
        (STORED[:, :3], NUMBERED, "labelIds.png: 2 x 3 pixels, where its image has 2 x 4"),
        (STORED.astype(np.uint16), NUMBERED, "labelIds.png: 16-bit"),
        (STORED, NUMBERED[:1], "instanceIds.png: 1 x 4 pixels"),
        (STORED, STORED, "instanceIds.png: 8-bit grey, where instances need 16-bit"),
    ],
)
def test_malformed_files(build, stored, numbered, reason):
    with pytest.raises(DataFormatError, match=reason):
        data.open("cityscapes", build(stored, numbered))[0]


@pytest.mark.parametrize("name", [LABELS, INSTANCES])
def test_truncated_files(build, name):
    root = build()
    (root / name).write_bytes((root / name).read_bytes()[:-9])
    with pytest.raises(DataFormatError, match=f"{name}: damaged PNG"):
        data.open("cityscapes", root)[0]
