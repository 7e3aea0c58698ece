"""Virtual KITTI 2: written here."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stepsight.data.readers.config import VirtualKittiSettings
from stepsight.data.readers.flow.vkitti import VirtualKitti
from stepsight.errors import DataFormatError, UserError

PLACES = ("Scene01/clone", "Scene02/clone", "Scene02/fog", "Scene20/15-deg-left")
BOTH, DEPTH = frozenset({"depth", "flow"}), frozenset({"depth"})


def jpeg_bytes(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value, value, value)).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def write_set(root, write_png, prefix: str) -> None:
    """Three frames a sequence: image n grey 40 n, depth n metres below a row of sky."""
    for place in PLACES:
        for camera in ("Camera_0", "Camera_1"):
            for n in range(3):
                base = f"{place}/frames/{{}}/{camera}"
                path = root / f"{prefix}rgb" / base.format("rgb") / f"rgb_{n:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg_bytes(40 * n))
                depth = np.full((4, 6), 100 * n + 123, np.uint16)
                depth[0], depth[1, 0] = 65535, 0
                folder = root / f"{prefix}depth" / base.format("depth")
                write_png(folder / f"depth_{n:05d}.png", depth)
                if n < 2:
                    stored = np.full((4, 6, 3), [65535, 0, 1], np.uint16)
                    stored[0, 0] = 0
                    folder = root / f"{prefix}forwardFlow" / base.format("forwardFlow")
                    write_png(folder / f"flow_{n:05d}.png", stored)


@pytest.fixture(params=["vkitti_2.0.3_", ""])
def root(tmp_path, write_png, request):
    write_set(tmp_path, write_png, request.param)
    return tmp_path


@pytest.fixture
def plain(tmp_path, write_png):
    write_set(tmp_path, write_png, "")
    return tmp_path


def open_at(root, split="all", quantities=None, **options):
    return VirtualKitti(VirtualKittiSettings(root=str(root), **options), split, quantities)


def test_either_layout_and_marigolds_splits(root):
    train = [s.key for s in open_at(root, "train", camera="0")]
    assert train == [
        f"{place}/Camera_0/{n:05d}"
        for place in ("Scene02/clone", "Scene20/15-deg-left")
        for n in (0, 1)
    ]
    assert [s.key for s in open_at(root, "val", camera="1")] == [
        "Scene01/clone/Camera_1/00000",
        "Scene01/clone/Camera_1/00001",
    ]
    assert len(open_at(root)) == 12 and len(open_at(root, quantities=DEPTH)) == 18


def test_depth_is_in_metres_and_the_sky_has_none(plain):
    source = open_at(plain, "val", DEPTH, camera="0")
    sample = source[2]
    assert sample.key == "Scene01/clone/Camera_0/00002" and sample.second is None
    assert sample.depth[0, 2:].unique().tolist() == pytest.approx([3.23])
    assert (~sample.depth_valid).nonzero().tolist() == [[0, 0, x] for x in range(6)] + [[0, 1, 0]]
    assert sample.depth[~sample.depth_valid].unique().tolist() == [0]


def test_flow_belongs_to_the_pair(plain):
    sample = open_at(plain, "val", camera="0")[1]
    assert (int(sample.image.max()), int(sample.second.min())) == (40, 80)
    assert sample.flow[:, 1, 1].tolist() == [5, -3]  # the whole 6 x 4 image: w - 1, -(h - 1)
    assert (~sample.flow_valid).nonzero().tolist() == [[0, 0, 0]]
    assert sample.depth is not None


def test_published_counts(plain):
    assert open_at(plain, quantities=DEPTH).published == {"train": 20148, "val": 5364}
    assert open_at(plain, quantities=BOTH).published == {"train": 20148 - 48, "val": 5364 - 12}
    assert open_at(plain, quantities=DEPTH, camera="1").published["val"] == 2682


def test_archives_that_were_not_unpacked(plain):
    (plain / "forwardFlow").rename(plain / "away")
    source = open_at(plain, "val")
    assert source.quantities == DEPTH and len(source) == 6
    with pytest.raises(UserError, match="forwardFlow/Camera_0/flow_00000.png is missing"):
        open_at(plain, "val", BOTH)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.ones((4, 6), np.uint8), "8-bit grey"),
        (np.ones((4, 5), np.uint16), "4 x 5 pixels"),
        (np.full((4, 6), 65535, np.uint16), "no valid depth"),
        (np.ones((4, 6, 3), np.uint16), "grey is expected"),
    ],
)
def test_malformed_depth(plain, write_png, pixels, reason):
    write_png(plain / "depth/Scene01/clone/frames/depth/Camera_0/depth_00000.png", pixels)
    with pytest.raises(DataFormatError, match=f"depth_00000.png: .*{reason}"):
        open_at(plain, "val")[0]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.ones((4, 6, 3), np.uint8), "16-bit RGB is expected"),
        (np.ones((4, 5, 3), np.uint16), "4 x 5 pixels"),
        (np.zeros((4, 6, 3), np.uint16), "no valid flow"),
    ],
)
def test_malformed_flow(plain, write_png, pixels, reason):
    path = plain / "forwardFlow/Scene01/clone/frames/forwardFlow/Camera_0/flow_00000.png"
    write_png(path, pixels)
    with pytest.raises(DataFormatError, match=f"flow_00000.png: .*{reason}"):
        open_at(plain, "val")[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataFormatError, match="flow_00000.png: damaged"):
        open_at(plain, "val")[0]


def test_missing_frames_and_splits(plain):
    with pytest.raises(UserError, match="no split 'test' .*train 8, val 4, all 12"):
        open_at(plain, "test")
    (plain / "rgb/Scene01/clone/frames/rgb/Camera_0/rgb_00001.jpg").unlink()
    with pytest.raises(UserError, match="Camera_0/rgb_00001.jpg is missing"):
        open_at(plain)
