"""Hypersim in Marigold's layout: written here, and real."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepsight.data.check import check
from stepsight.data.prepare.manifest import Manifest
from stepsight.data.readers.config import HypersimSettings
from stepsight.data.readers.depth.hypersim import Hypersim
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0, 1, 834, 64999], [65000, 65535, 5522, 1000]], np.uint16)  # millimetres


@pytest.fixture
def root(tmp_path, write_png):
    """Two training frames and one for validation; the list of the latter ends without newline."""
    colour = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)
    for split, scenes in {"train": ("ai_001_001", "ai_001_002"), "val": ("ai_003_001",)}.items():
        lines = [f"{s}/rgb_cam_00_fr0000.png {s}/depth_plane_cam_00_fr0000.png" for s in scenes]
        (tmp_path / f"filename_list_{split}.txt").write_text("\n".join(lines))
        for line in lines:
            image, depth = line.split()
            write_png(tmp_path / split / image, colour)
            write_png(tmp_path / split / depth, DEPTH)
    return tmp_path


def open_at(root, split="train", quantities=None):
    return Hypersim(HypersimSettings(root=str(root)), split, quantities)


def test_millimetres_become_metres_and_the_range_is_open(root):
    sample = open_at(root, "val")[0]
    assert sample.depth.dtype == torch.float32
    assert sample.depth[0].tolist() == (torch.tensor(DEPTH.astype(np.float32)) / 1000).tolist()
    assert sample.depth_valid[0].tolist() == [[False, True, True, True], [False, False, True, True]]
    assert sample.key == "val/ai_003_001/rgb_cam_00_fr0000" and sample.source == "hypersim"


def test_splits(root):
    assert [len(open_at(root, split)) for split in ("train", "val", "all")] == [2, 1, 3]
    everything = open_at(root, "all").samples(range(3))
    assert len({sample.key for sample in everything}) == 3
    with pytest.raises(UserError, match=r"no split 'test' .*train 2, val 1, all 3"):
        open_at(root, "test")


def test_quantities_not_asked_for_are_not_read(root):
    (root / "val/ai_003_001/depth_plane_cam_00_fr0000.png").unlink()
    source = open_at(root, "val", frozenset({"flow"}))
    assert source.quantities == frozenset() and source[0].depth is None
    with pytest.raises(UserError, match="depth_plane_cam_00_fr0000.png"):
        open_at(root, "val")[0]


def test_published_names_and_third_words(root):
    """Marigold's own lists are called filtered, and remark on frames."""
    path = root / "filename_list_val.txt"
    text = path.read_text()
    path.unlink()
    (root / "filename_list_val_filtered.txt").write_text(f"{text}  (val)")
    (root / "filename_list_val_filtered_small_80.txt").write_text(text)
    assert open_at(root, "val")[0].key == "val/ai_003_001/rgb_cam_00_fr0000"
    assert len(open_at(root, "all")) == 3


def test_empty_list(root):
    (root / "filename_list_val.txt").write_text("")
    with pytest.raises(UserError, match=r"split 'val' .* is empty \(train 2, val 0, all 2\)"):
        open_at(root, "val")


@pytest.mark.parametrize("line", ["a.png", "a.png b.png 721.5 x", ""])
def test_malformed_list(root, line):
    path = root / "filename_list_val.txt"
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(
        DataFormatError, match=r"filename_list_val.txt, line 2: expected 'rgb depth'"
    ):
        open_at(root, "val")


def test_list_that_is_no_text(root):
    (root / "filename_list_val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFormatError, match="filename_list_val.txt"):
        open_at(root, "val")


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (DEPTH.astype(np.uint8), "8-bit grey"),
        (DEPTH[:, :3], "2 x 3 pixels, where its image has 2 x 4"),
        (np.zeros_like(DEPTH), "no valid depth"),
        (np.full_like(DEPTH, 65535), "no valid depth"),
    ],
)
def test_malformed_depth(root, write_png, pixels, reason):
    path = root / "val/ai_003_001/depth_plane_cam_00_fr0000.png"
    write_png(path, pixels)
    with pytest.raises(DataFormatError, match=f"{path.name}: .*{reason}"):
        open_at(root, "val")[0]


def test_real_files(real_samples):
    source = open_at(real_samples("hypersim"), "val")
    bright, deep = source.samples([0, 1])
    assert bright.image.shape == (3, 768, 1024) and bright.depth.shape == (1, 768, 1024)
    golden = [(0.834, 5.522, 1.126, 5.425, 0), (0.0, 18.727, 3.995, 17.998, 225)]
    for sample, (low, high, q02, q98, holes) in zip((bright, deep), golden):
        depth, valid = sample.depth, sample.depth_valid
        assert (depth.min().item(), depth.max().item()) == pytest.approx((low, high), abs=1e-6)
        assert int((~valid).sum()) == int((depth == 0).sum()) == holes
        quantiles = np.quantile(depth[valid].numpy(), [0.02, 0.98])
        assert quantiles == pytest.approx([q02, q98], abs=5e-4)


def test_a_prepared_folder_has_counts_of_its_own(root):
    """The rule behind Marigold's lists is not public: what we prepare may well be more."""
    Manifest("hypersim", "raw", "stepsight", {}, counts={"train": 2, "val": 1}).write(root)
    assert dict(open_at(root).published) == {"train": 2, "val": 1}
    report = check(HypersimSettings(root=str(root)), "train")
    assert report.state == "complete" and report.ok
    assert Hypersim.published["train"] == 53885
