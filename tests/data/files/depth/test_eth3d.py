"""ETH3D's raw depth, written here by the byte rules."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stepsight.data.readers.config import Eth3dSettings
from stepsight.data.readers.depth.eth3d import Eth3d
from stepsight.errors import DataFormatError, UserError

VALUES = [0.5, float("inf"), 33.25, 100.0, float("inf"), 7.0]  # 2 x 3, row by row
RGB = "rgb/{0}/images/dslr_images/{1}.JPG"
DEPTH = "depth/{0}_dslr_depth/{0}/ground_truth_depth/dslr_images/{1}.JPG"
FRAMES = [("office", "DSC_0219"), ("office", "DSC_0220"), ("terrace", "DSC_0219")]


@pytest.fixture
def root(tmp_path):
    for frame in FRAMES:
        image, depth = tmp_path / RGB.format(*frame), tmp_path / DEPTH.format(*frame)
        image.parent.mkdir(parents=True, exist_ok=True)
        depth.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10, 200, 30)).save(image, "JPEG")
        depth.write_bytes(struct.pack("<6f", *VALUES))
    return tmp_path


def open_at(root, split="all", quantities=None):
    return Eth3d(Eth3dSettings(root=str(root)), split, quantities)


def test_infinite_depth_is_invalid_and_comes_out_finite(root):
    sample = open_at(root)[0]
    assert sample.depth[0].tolist() == [[0.5, 0.0, 33.25], [100.0, 0.0, 7.0]]
    assert sample.depth_valid[0].tolist() == [[True, False, True], [True, False, True]]
    assert sample.key == "rgb/office/images/dslr_images/DSC_0219"


def test_by_folders_or_list(root):
    keys = [frame.key for frame in open_at(root).entries]
    assert keys == [RGB.format(*frame).removesuffix(".JPG") for frame in FRAMES]
    lines = [f"{RGB.format(*frame)} {DEPTH.format(*frame)}" for frame in FRAMES[::-1][:2]]
    (root / "eth3d_filename_list.txt").write_text("\n".join(lines))
    assert [frame.key for frame in open_at(root).entries] == keys[::-1][:2]
    assert open_at(root)[0].depth[0, 0, 0] == 0.5


def test_empty_list(root):
    (root / "eth3d_filename_list.txt").write_text("")
    with pytest.raises(UserError, match="split 'all' .* is empty"):
        open_at(root)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<5f", *VALUES[:5]), "need 24 bytes, the file has 20"),
        (struct.pack("<7f", *VALUES, 1.0), "need 24 bytes, the file has 28"),
        (struct.pack("<6d", *VALUES), "need 24 bytes, the file has 48"),
        (b"", "need 24 bytes, the file has 0"),
        (struct.pack("<6f", *VALUES[:5], float("nan")), "holds NaN"),
        (struct.pack("<6f", *[float("inf")] * 6), "no valid depth"),
        (struct.pack("<6f", *[-1.0] * 6), "no valid depth"),
    ],
)
def test_malformed_depth(root, data, reason):
    (root / DEPTH.format(*FRAMES[0])).write_bytes(data)
    with pytest.raises(DataFormatError, match=rf"DSC_0219.JPG: .*{reason}"):
        open_at(root)[0]


def test_quantities_not_asked_for_are_not_read(root):
    (root / DEPTH.format(*FRAMES[0])).write_bytes(b"")
    assert open_at(root, quantities=frozenset())[0].depth is None


def test_the_published_size(root):
    """24 megapixels, as the cameras of the data set made them."""
    image, depth = (root / name.format(*FRAMES[0]) for name in (RGB, DEPTH))
    Image.new("RGB", (6048, 4032)).save(image, "JPEG")
    np.full(4032 * 6048, 2.5, "<f4").tofile(depth)
    assert depth.stat().st_size == 97_542_144
    assert open_at(root)[0].depth.shape == (1, 4032, 6048)
