"""FlyingChairs2: written here, and a real cut-out."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import FlyingChairs2Settings
from stepsight.data.readers.flow.flyingchairs2 import FlyingChairs2
from stepsight.errors import DataFormatError, UserError

NUMBERS = {"train": ("0000000", "0000004"), "val": ("0000002",)}


@pytest.fixture
def root(tmp_path, write_png, flo_bytes):
    """Image i is filled with i; the flow is (number, 1) forward and (-number, -1) back."""
    for split, numbers in NUMBERS.items():
        for number in numbers:
            stem = tmp_path / split / number
            for index in (0, 1):
                write_png(tmp_path / f"{stem}-img_{index}.png", np.full((4, 6, 3), index, np.uint8))
            for way, sign in (("01", 1), ("10", -1)):
                flow = np.full((4, 6, 2), [sign * int(number), sign], np.float32)
                (tmp_path / f"{stem}-flow_{way}.flo").write_bytes(flo_bytes(flow))
                hidden = np.zeros((4, 6), np.uint8)
                hidden[0, : int(way, 2)] = 255
                write_png(tmp_path / f"{stem}-occ_{way}.png", hidden)
    return tmp_path


def open_at(root, split="all", quantities=None, **options):
    return FlyingChairs2(FlyingChairs2Settings(root=str(root), **options), split, quantities)


def test_splits_are_folders(root):
    keys = {split: [s.key for s in open_at(root, split)] for split in ("train", "val", "all")}
    assert keys["train"] == ["train/0000000-flow_01", "train/0000004-flow_01"]
    assert keys["val"] == ["val/0000002-flow_01"] and keys["all"] == keys["train"] + keys["val"]


def test_forward_and_backward(root):
    forward, backward = open_at(root, "val", direction="both")
    for sample, first in ((forward, 0), (backward, 1)):
        assert sample.image.unique().tolist() == [first]
        assert sample.second.unique().tolist() == [1 - first]
        assert sample.flow_valid.all()
    assert (forward.flow[:, 0, 0].tolist(), backward.flow[:, 0, 0].tolist()) == ([2, 1], [-2, -1])
    assert (forward.occluded.sum(), backward.occluded.sum()) == (1, 2)
    assert [s.key for s in open_at(root, "val", direction="backward")] == [backward.key]


def test_published_counts_follow_the_directions(root):
    assert open_at(root).published == {"train": 22232, "val": 640}
    assert open_at(root, direction="both").published["val"] == 1280


def test_without_flow_or_masks(root):
    sample = open_at(root, "val", frozenset({"depth"}))[0]
    assert sample.flow is None and sample.occluded is None and sample.second is not None
    (root / "val" / "0000002-occ_01.png").unlink()
    assert open_at(root, "val")[0].occluded is None


@pytest.mark.parametrize("part", ["img_1.png", "flow_01.flo"])
def test_missing_files(root, part):
    (root / "train" / f"0000004-{part}").unlink()
    with pytest.raises(UserError, match=f"flyingchairs2: .*0000004-{part} is missing"):
        open_at(root)


def test_malformed_files(root, flo_bytes, write_png):
    flow = root / "val" / "0000002-flow_01.flo"
    for data, reason in (
        (flow.read_bytes()[:-1], "the file has"),
        (flo_bytes(np.zeros((4, 5, 2))), "5 x 4 pixels|4 x 5 pixels"),
        (flo_bytes(np.full((4, 6, 2), 2e9)), "no valid flow"),
        (flo_bytes(np.full((4, 6, 2), np.nan)), "NaN"),
    ):
        flow.write_bytes(data)
        with pytest.raises(DataFormatError, match=f"flow_01.flo: .*({reason})"):
            open_at(root, "val")[0]
    flow.write_bytes(flo_bytes(np.zeros((4, 6, 2))))
    write_png(root / "val" / "0000002-occ_01.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(DataFormatError, match="occ_01.png: 4 x 5 pixels"):
        open_at(root, "val")[0]


def test_unknown_and_empty_splits(root):
    with pytest.raises(UserError, match="no split 'test' .*train 2, val 1, all 3"):
        open_at(root, "test")
    for path in (root / "val").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="split 'val' .* is empty"):
        open_at(root, "val")


def test_real_cut_out(tmp_path, real_samples):
    (tmp_path / "train").symlink_to(real_samples("flow_formats"))
    (sample,) = open_at(tmp_path)
    assert sample.flow.shape == (2, 50, 50) and sample.occluded.shape == (1, 50, 50)
    assert sample.flow_valid.all() and sample.flow.abs().max() < 100
