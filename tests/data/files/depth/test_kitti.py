"""KITTI's depth on Eigen's split: written here, and real frames put into the published layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepsight.data.readers.config import KittiSettings
from stepsight.data.readers.depth.kitti import Kitti
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0, 1, 256], [2560, 20480, 65535]], np.uint16)  # metres x 256
METRES = [[0.0, 1 / 256, 1.0], [10.0, 80.0, 65535 / 256]]
DRIVE = "2011_09_26_drive_0002_sync"
IMAGES = f"2011_09_26/{DRIVE}/image_02/data"
TRUTH = f"{DRIVE}/proj_depth/groundtruth/image_02"
LINES = f"""{IMAGES}/0000000005.png None 721.5377
{IMAGES}/0000000069.png {TRUTH}/0000000069.png 721.5377
{IMAGES}/0000000054.png {TRUTH}/0000000054.png 721.5377"""


def lay_out(root, write_png, place=""):
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    for number in ("0000000005", "0000000054", "0000000069"):
        write_png(root / IMAGES / f"{number}.png", colour)
        if number != "0000000005":
            write_png(root / place / TRUTH / f"{number}.png", DEPTH)
    return root


@pytest.fixture
def root(tmp_path, write_png):
    return lay_out(tmp_path, write_png)


def open_at(root, split="test", quantities=None):
    return Kitti(KittiSettings(root=str(root)), split, quantities)


def test_list_with_frames_that_have_no_truth(root):
    (root / "eigen_test_files_with_gt.txt").write_text(LINES)
    first, second = open_at(root).samples([0, 1])
    assert (first.key, second.key) == (f"{IMAGES}/0000000069", f"{IMAGES}/0000000054")
    assert len(open_at(root)) == 2 and len(first.key.encode()) <= 128
    assert first.depth[0].tolist() == METRES and first.depth.dtype == torch.float32
    assert first.depth_valid[0].tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize(
    ("place", "split"),
    [("", "test"), ("train", "train"), ("data_depth_annotated/val", "val")],
)
def test_by_folders(tmp_path, write_png, place, split):
    source = open_at(lay_out(tmp_path, write_png, place), split)
    assert [s.key[-10:] for s in source.samples(range(len(source)))] == ["0000000054", "0000000069"]
    (tmp_path / "my_eigen_train_files.txt").write_text(LINES)
    assert open_at(tmp_path, "train")[0].depth[0].tolist() == METRES


def test_both_cameras_and_drives_without_truth(root, write_png):
    write_png(
        root / IMAGES.replace("02/data", "03/data") / "0000000054.png", np.zeros((2, 3, 3), "u1")
    )
    write_png(
        root / "2011_09_28/2011_09_28_drive_1_sync/image_02/data/0.png", np.zeros((2, 3), "u1")
    )
    assert len(open_at(root)) == 2
    write_png(root / TRUTH.replace("image_02", "image_03") / "0000000054.png", DEPTH)
    assert [s.key[-18:-16] for s in open_at(root).samples(range(3))] == ["02", "02", "03"]


def test_lists_without_frames(root):
    path = root / "eigen_test_files_with_gt.txt"
    for text in ("", LINES.splitlines()[0]):
        path.write_text(text)
        with pytest.raises(UserError, match="split 'test' .* is empty"):
            open_at(root)
    path.write_text("one.png")
    with pytest.raises(DataFormatError, match="gt.txt, line 1: expected 'rgb depth'"):
        open_at(root)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (DEPTH.astype(np.uint8), "8-bit grey"),
        (DEPTH[:, :2], "2 x 2 pixels, where its image has 2 x 3"),
        (np.zeros_like(DEPTH), "no valid depth"),
        (np.dstack([DEPTH] * 3), "grey is expected"),
    ],
)
def test_malformed_depth(root, write_png, pixels, reason):
    write_png(root / TRUTH / "0000000054.png", pixels)
    with pytest.raises(DataFormatError, match=f"0000000054.png: .*{reason}"):
        open_at(root)[0]


def test_damaged_depth(root):
    path = root / TRUTH / "0000000054.png"
    data = bytearray(path.read_bytes())
    data[45] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match="0000000054.png: damaged PNG, wrong CRC"):
        open_at(root)[0]


def test_missing_truth(root):
    (root / "eigen_test_files_with_gt.txt").write_text(LINES)
    (root / TRUTH / "0000000054.png").unlink()
    assert open_at(root, quantities=frozenset())[1].depth is None
    with pytest.raises(UserError, match="0000000054.png: cannot be read"):
        open_at(root)[1]


def test_real_files(real_samples, tmp_path):
    real = real_samples("kitti")
    for folder, source in ((IMAGES, "rgb"), (TRUTH, "depth")):
        (tmp_path / folder).mkdir(parents=True)
        for path in (real / source).glob("*.png"):
            (tmp_path / folder / path.name).symlink_to(path)
    samples = open_at(tmp_path).samples([0, 1])
    assert [sample.key[-10:] for sample in samples] == ["0000000005", "0000000050"]
    for sample in samples:
        depth, valid = sample.depth, sample.depth_valid
        assert sample.image.shape == (3, 375, 1242) and depth.shape == (1, 375, 1242)
        assert 0.18 < valid.float().mean() < 0.24
        assert 1.0 < depth[valid].min() and depth.max() < 120.0
