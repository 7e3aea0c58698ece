"""ScanNet's evaluation frames, written here by the published layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stepsight.data.readers.config import ScanNetSettings
from stepsight.data.readers.depth.scannet import ScanNet
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0, 1, 9999], [2500, 65535, 400]], np.uint16)  # millimetres
LIST = "scannet_val_sampled_list_800_1.txt"


@pytest.fixture
def root(tmp_path, write_png):
    for scene, number in (
        ("scene0406_02", "000300"),
        ("scene0406_02", "001000"),
        ("scene0011_00", "0"),
    ):
        folder = tmp_path / scene
        write_png(folder / "depth" / f"{number}.png", DEPTH)
        (folder / "color").mkdir(exist_ok=True)
        Image.new("RGB", (3, 2), (90, 120, 200)).save(folder / "color" / f"{number}.jpg")
    return tmp_path


def open_at(root, split="val", quantities=None):
    return ScanNet(ScanNetSettings(root=str(root)), split, quantities)


def test_by_folders(root):
    source = open_at(root)
    assert [s.key for s in source.samples(range(3))] == [
        "scene0011_00/color/0",
        "scene0406_02/color/000300",
        "scene0406_02/color/001000",
    ]
    sample = source[1]
    assert sample.depth[0].numpy() == pytest.approx(DEPTH / 1000, abs=1e-5)
    assert sample.depth_valid[0].tolist() == (DEPTH > 0).tolist()


def test_by_list(root):
    (root / LIST).write_text("scene0406_02/color/000300.jpg scene0406_02/depth/000300.png")
    assert [s.key for s in (open_at(root)[0],)] == ["scene0406_02/color/000300"]
    assert len(open_at(root, "all")) == 1
    (root / LIST).write_text("")
    with pytest.raises(UserError, match="split 'val' .* is empty"):
        open_at(root)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (DEPTH.astype(np.uint8), "8-bit grey"),
        (np.ones((480, 640), np.uint16), "480 x 640 pixels, where its image has 2 x 3"),
        (np.zeros_like(DEPTH), "no valid depth"),
    ],
)
def test_malformed_depth(root, write_png, pixels, reason):
    write_png(root / "scene0011_00/depth/0.png", pixels)
    with pytest.raises(DataFormatError, match=f"0.png: .*{reason}"):
        open_at(root)[0]


def test_damaged_image(root):
    path = root / "scene0011_00/color/0.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataFormatError, match="0.jpg"):
        open_at(root)[0]


def test_quantities_not_asked_for_are_not_read(root):
    (root / "scene0011_00/depth/0.png").unlink()
    assert open_at(root, quantities=frozenset())[0].depth is None
