"""FlyingThings3D: written here, and read by torchvision for comparison."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from torchvision.datasets import FlyingThings3D as Reference

from stepsight.data.readers.config import FlyingThingsSettings
from stepsight.data.readers.flow.flyingthings import FlyingThings
from stepsight.errors import DataFormatError, UserError

SEQUENCES = {"TRAIN": ("A/0000", "A/0001", "C/0000"), "TEST": ("B/0000",)}
FRAMES = (6, 7, 8)


def pfm_bytes(pixels: np.ndarray) -> bytes:
    """float "h w 3", first row on top; PFM stores it last."""
    header = b"PF\n%d %d\n-1\n" % pixels.shape[1::-1]
    return header + struct.pack(f"<{pixels.size}f", *pixels[::-1].ravel().tolist())


@pytest.fixture
def root(tmp_path, write_png):
    """Random pictures and flow, both passes, cameras and directions."""
    rng = np.random.default_rng(0)
    root = tmp_path / "FlyingThings3D"
    for split, sequences in SEQUENCES.items():
        for place in (f"{split}/{s}" for s in sequences):
            for camera in ("left", "right"):
                for frame in FRAMES:
                    for render in ("clean", "final"):
                        pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
                        name = f"frames_{render}pass/{place}/{camera}/{frame:04d}.png"
                        write_png(root / name, pixels)
                    for way in ("future", "past"):
                        folder = root / "optical_flow" / place / f"into_{way}" / camera
                        folder.mkdir(parents=True, exist_ok=True)
                        file = f"OpticalFlowInto{way.title()}_{frame:04d}_{camera[0].upper()}.pfm"
                        flow = rng.normal(0, 50, (4, 6, 3))
                        (folder / file).write_bytes(pfm_bytes(flow * [1, 1, 0]))
    return root


def open_at(root, split="all", quantities=None, **options):
    return FlyingThings(FlyingThingsSettings(root=str(root), **options), split, quantities)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("render", ["clean", "final"])
def test_agrees_with_torchvision(root, split, render):
    reference = Reference(str(root.parent), split=split, pass_name=render, camera="both")
    source = open_at(root, split, render=render, camera="both")
    assert len(source) == len(reference) == len(SEQUENCES[split.upper()]) * 2 * 2 * 2
    assert len({s.key for s in source}) == len(source)
    for sample, (first, second, flow) in zip(source, reference):
        assert np.array_equal(sample.image.permute(1, 2, 0), np.array(first))
        assert np.array_equal(sample.second.permute(1, 2, 0), np.array(second))
        assert np.array_equal(sample.flow, flow) and sample.flow_valid.all()


def test_the_past_leads_from_the_later_frame_to_the_earlier(root):
    source = open_at(root, "test")
    assert [s.key for s in source] == [
        f"TEST/B/0000/left/{key}"
        for key in ("0006-future", "0007-future", "0007-past", "0008-past")
    ]
    future, past = source[0], source[2]
    assert (future.image == past.second).all() and (future.second == past.image).all()


def test_options_choose_cameras_and_directions(root):
    assert [len(open_at(root, camera=c)) for c in ("left", "right", "both")] == [16, 16, 32]
    source = open_at(root, "test", camera="right", direction="past")
    assert [s.key[-15:] for s in source] == ["right/0007-past", "right/0008-past"]
    assert source.published == {"train": 20151, "test": 3933}


def test_far_flow_is_invalid(root):
    pixels = np.zeros((4, 6, 3))
    pixels[0, 0, 0], pixels[1, 1, 1], pixels[2, 2, 0] = 1000, -1000, 999.9
    path = root / "optical_flow/TEST/B/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm"
    path.write_bytes(pfm_bytes(pixels))
    assert (~open_at(root, "test")[0].flow_valid).nonzero().tolist() == [[0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pfm_bytes(np.zeros((4, 6, 3)))[:-1], "the file has"),
        (b"P6" + pfm_bytes(np.zeros((4, 6, 3)))[2:], "not a .pfm"),
        (pfm_bytes(np.zeros((4, 5, 3))), "4 x 5 pixels"),
        (pfm_bytes(np.full((4, 6, 3), np.nan)), "NaN"),
        (pfm_bytes(np.full((4, 6, 3), 1e4)), "no valid flow"),
        (b"Pf\n6 4\n-1\n" + bytes(96), "one channel"),
    ],
)
def test_malformed_flow(root, data, reason):
    path = root / "optical_flow/TEST/B/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=f"0006_L.pfm: .*{reason}"):
        open_at(root, "test")[0]


def test_missing_frames_and_flow(root):
    flow = root / "optical_flow/TEST/B/0000/into_past/left/OpticalFlowIntoPast_0007_L.pfm"
    flow.unlink()
    with pytest.raises(UserError, match="OpticalFlowIntoPast_0007_L.pfm is missing"):
        open_at(root)
    assert len(open_at(root, quantities=frozenset())) == 16
    (root / "frames_cleanpass/TRAIN/A/0000/left/0007.png").unlink()
    with pytest.raises(UserError, match="left/0007.png is missing"):
        open_at(root, "train")


def test_unknown_and_empty_splits(root):
    with pytest.raises(UserError, match="no split 'val' .*train 12, test 4, all 16"):
        open_at(root, "val")
    (root / "frames_cleanpass" / "TEST").rename(root / "elsewhere")
    with pytest.raises(UserError, match="split 'test' .* is empty"):
        open_at(root, "test")
