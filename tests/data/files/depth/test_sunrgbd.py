"""SUN RGB-D, written here by the published layout, bits rotated as its toolbox undoes it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stepsight.data.readers.config import SunRgbdSettings
from stepsight.data.readers.depth.sunrgbd import SunRgbd
from stepsight.errors import DataFormatError, UserError

MILLIMETRES = np.array([[0, 1, 7, 8], [2500, 8191, 8192, 65535]], np.uint16)
CAPTURES = ("kv2/kinect2data/000002_a", "kv1/NYUdata/NYU0001", "xtion/sun3ddata/mit/scan/0001")


def rotated(values: np.ndarray) -> np.ndarray:
    """As stored: the highest 13 bits are the lowest of the value (`bitshift` of 16-bit numbers)."""
    text = [f"{value:016b}" for value in values.ravel()]
    turned = [int(bits[3:] + bits[:3], 2) for bits in text]
    return np.array(turned, np.uint16).reshape(values.shape)


@pytest.fixture
def root(tmp_path, write_png):
    for number, capture in enumerate(CAPTURES):
        folder = tmp_path / "SUNRGBD" / capture
        (folder / "image").mkdir(parents=True)
        Image.new("RGB", (4, 2), (90, 120, number)).save(folder / "image" / f"{number}.jpg")
        write_png(folder / "depth" / "other_name.png", rotated(MILLIMETRES))
        write_png(folder / "depth_bfx" / "filled.png", rotated(MILLIMETRES | 1))
    return tmp_path / "SUNRGBD"


def open_at(root, split="all", **options):
    return SunRgbd(SunRgbdSettings(root=str(root), **options), split)


def test_bits_are_turned_back(root):
    source = open_at(root, depth="raw")
    assert [s.key.rpartition("/image/")[0] for s in source] == sorted(CAPTURES)
    sample = source[0]
    assert np.array_equal(sample.depth[0], MILLIMETRES.astype(np.float32) / 1000)
    assert np.array_equal(sample.depth_valid[0], MILLIMETRES > 0)
    assert open_at(root)[0].depth_valid.all()


def test_official_split(root):
    with pytest.raises(UserError, match="allsplit.mat not found"):
        open_at(root, "test")
    folder = root.parent / "SUNRGBDtoolbox/traintestSUNRGBD"
    folder.mkdir(parents=True)
    texts = np.array([[f"/n/fs/sun3d/data/SUNRGBD/{c}" for c in CAPTURES]], object)
    savemat(folder / "allsplit.mat", {"alltrain": texts[:, :2], "alltest": texts[:, 2:]})
    assert len(open_at(root, "train")) == 2
    assert [s.key for s in open_at(root, "test")] == [f"{CAPTURES[2]}/image/2"]


def test_malformed(root, write_png):
    extra = write_png(root / CAPTURES[1] / "depth_bfx/second.png", MILLIMETRES)
    with pytest.raises(DataFormatError, match="depth_bfx holds 2 .png files, where one belongs"):
        open_at(root)
    extra.unlink()
    write_png(root / CAPTURES[1] / "depth_bfx/filled.png", np.zeros((2, 4), np.uint8))
    with pytest.raises(DataFormatError, match="8-bit grey"):
        open_at(root)[0]
