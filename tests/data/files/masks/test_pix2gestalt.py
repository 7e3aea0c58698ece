"""pix2gestalt's folders: written here, and real."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import Pix2GestaltSettings
from stepsight.data.readers.masks.pix2gestalt import Pix2Gestalt
from stepsight.errors import DataFormatError, UserError

VISIBLE = np.array([[255, 128, 0, 0], [0, 127, 0, 255]], np.uint8)
WHOLE = np.array([[255, 255, 255, 0], [0, 0, 0, 0]], np.uint8)  # lacks a visible pixel
FILES = ("occlusion/{}_occlusion.png", "visible_object_mask/{}_visible_mask.png")
FILES += ("whole_mask/{}_whole_mask.png",)
PICTURE = "whole/{}_whole.png"


@pytest.fixture
def build(tmp_path, write_png):
    def write(count: int, whole: bool = False):
        for number in range(count):
            image = np.full((2, 4, 3), number, np.uint8)
            for name, pixels in zip(FILES, (image, VISIBLE, WHOLE)):
                write_png(tmp_path / name.format(1000 + number), pixels)
            if whole:
                write_png(tmp_path / PICTURE.format(1000 + number), 255 - image)
        return tmp_path

    return write


def open_at(root, split="all", quantities=None):
    return Pix2Gestalt(Pix2GestaltSettings(root=str(root)), split, quantities)


def test_masks(build):
    sample = open_at(build(1))[0]
    assert sample.modal[0].tolist() == [[True, True, False, False], [False, False, False, True]]
    assert sample.amodal[0].tolist() == [[True, True, True, False], [False, False, False, True]]
    assert sample.amodal_valid.all() and sample.key == "1000"


@pytest.mark.parametrize(("count", "val"), [(2, 1), (100, 1), (101, 2), (250, 3)])
def test_validation_is_the_last_percent(build, count, val):
    root = build(count)
    keys = {split: [open_at(root, split).entries] for split in ("train", "val", "all")}
    assert len(open_at(root, "val")) == val
    assert keys["train"][0] + keys["val"][0] == keys["all"][0]
    assert keys["all"][0] == sorted(keys["all"][0]) and len(keys["all"][0]) == count


def test_empty_and_unknown_splits(build):
    root = build(1)
    with pytest.raises(UserError, match=r"'train' .* is empty \(train 0, val 1, all 1\)"):
        open_at(root, "train")
    with pytest.raises(UserError, match="no split 'test'"):
        open_at(root, "test")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_and_shifts_nothing(build, name):
    root = build(3)
    (root / name.format(1001)).unlink()
    with pytest.raises(UserError, match=f"{name.format(1001)} is missing"):
        open_at(root)


def test_without_masks(build):
    assert open_at(build(1), "all", frozenset({"depth"}))[0].modal is None


def test_the_picture_of_the_whole_brings_the_masks(build):
    root = build(2, whole=True)
    assert open_at(root).quantities == {"amodal", "whole"}
    sample = open_at(root, "all", frozenset({"whole"}))[1]
    assert sample.whole.unique().tolist() == [254] and sample.whole.shape == (3, 2, 4)
    masks = open_at(root, "all", frozenset({"amodal"}))[1]
    assert masks.whole is None
    for name in ("modal", "amodal", "amodal_valid"):
        assert getattr(sample, name).equal(getattr(masks, name))


def test_missing_pictures_of_the_whole_matter_to_those_who_ask(build):
    root = build(2)
    assert open_at(root).quantities == {"amodal"}
    with pytest.raises(UserError, match=f"{PICTURE.format(1000)} is missing and so are 1 others"):
        open_at(root, "all", frozenset({"amodal", "whole"}))
    root = build(3, whole=True)
    (root / PICTURE.format(1001)).unlink()
    assert open_at(root, "all", frozenset({"amodal"}))[1].amodal is not None
    with pytest.raises(UserError, match=f"{PICTURE.format(1001)} is missing"):
        open_at(root, "all", frozenset({"whole"}))


def test_a_picture_of_another_size_is_refused(build, write_png):
    root = build(1, whole=True)
    write_png(root / PICTURE.format(1000), np.zeros((2, 5, 3), np.uint8))
    with pytest.raises(DataFormatError, match="1000_whole.png: 2 x 5 pixels, where its image has"):
        open_at(root)[0]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.stack([VISIBLE, VISIBLE.T.reshape(2, 4), VISIBLE * 0], 2), "in several colours"),
        (VISIBLE[:1], "1 x 4 pixels, where its image has 2 x 4"),
        (VISIBLE * 0, "no visible pixel"),
    ],
)
def test_malformed_mask(build, write_png, pixels, reason):
    root = build(1)
    write_png(root / FILES[1].format(1000), pixels)
    with pytest.raises(DataFormatError, match=f"1000_visible_mask.png: .*{reason}"):
        open_at(root)[0]


def test_real_files(real_samples):
    source = open_at(real_samples("pix2gestalt"))
    assert [s.key for s in source] == sorted(s.key for s in source) and len(source) == 6
    for sample in source:
        assert sample.image.shape == (3, 256, 256)
        assert not (sample.modal & ~sample.amodal).any()
        outside = sample.whole.amin(0)[~sample.amodal[0]]
        assert (outside == 255).float().mean() > 0.98  # soft borders reach a little further
        inside = sample.modal.expand(3, -1, -1)
        change = (sample.whole.float() - sample.image.float()).abs()[inside]
        assert change.median() < 3  # what is visible looks the same
        assert 0.3 < (sample.modal.sum() / sample.amodal.sum()).item() < 1  # all are occluded
