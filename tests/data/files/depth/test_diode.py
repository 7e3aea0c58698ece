"""DIODE's arrays and masks, written here by the published layout."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.check import check
from stepsight.data.readers.config import DiodeSettings
from stepsight.data.readers.depth.diode import Diode
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0.0, 1.5, 2.25], [300.0, 0.7, 9.0]], np.float32)[..., None]
MASK = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
NAMES = [
    "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "indoors/scene_00020/scan_00185/00020_00185_indoors_340_000",
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_000",
]


@pytest.fixture
def root(tmp_path, write_png):
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    for name in NAMES:
        write_png(tmp_path / f"{name}.png", colour)
        np.save(tmp_path / f"{name}_depth.npy", DEPTH)
        np.save(tmp_path / f"{name}_depth_mask.npy", MASK)
    return tmp_path


def open_at(root, split="val", quantities=None):
    return Diode(DiodeSettings(root=str(root)), split, quantities)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_only_the_mask_says_what_is_valid(root, dtype):
    np.save(root / f"{NAMES[0]}_depth.npy", DEPTH.astype(dtype))
    sample = open_at(root)[0]
    assert sample.depth_valid[0].tolist() == (MASK == 1).tolist()
    assert sample.depth[0].numpy() == pytest.approx(np.where(MASK, DEPTH[..., 0], 0.0), abs=1e-3)
    assert sample.depth.shape == (1, 2, 3) and sample.key == NAMES[0]


@pytest.mark.parametrize("mask", [MASK.astype(bool), MASK.astype(np.uint16), MASK[..., None]])
def test_masks_of_any_kind(root, mask):
    np.save(root / f"{NAMES[0]}_depth_mask.npy", mask)
    assert open_at(root)[0].depth_valid[0].tolist() == (MASK == 1).tolist()


def test_nan_outside_the_mask_is_harmless(root):
    np.save(root / f"{NAMES[0]}_depth.npy", np.where(MASK, DEPTH[..., 0], np.nan))
    sample = open_at(root)[0]
    assert sample.depth.isfinite().all() and int(sample.depth_valid.sum()) == 4


def test_splits(root):
    splits = ("indoors", "outdoor", "val", "all")
    assert [len(open_at(root, split)) for split in splits] == [2, 1, 3, 3]
    assert check(DiodeSettings(root=str(root)), "all").published == 771  # each frame once
    with pytest.raises(UserError, match=r"no split 'test' .*indoors 2, outdoor 1, all 3"):
        open_at(root, "test")
    with pytest.raises(UserError, match=rf"did you mean {root}\?"):
        open_at(root / "indoors")


@pytest.mark.parametrize(
    ("depth", "reason"),
    [
        (DEPTH[:, :2], "mask and depth have 2 x 3 and 2 x 2 pixels"),
        (np.dstack([DEPTH] * 3), "2 x 3 x 3 is no picture of depth"),
        (np.where(MASK[..., None], np.nan, DEPTH), "holds NaN where its mask"),
        (np.zeros_like(DEPTH), "no valid depth"),
        (np.array([{"a": 1}], object), "not a .npy file of numbers"),
    ],
)
def test_malformed_depth(root, depth, reason):
    np.save(root / f"{NAMES[0]}_depth.npy", depth, allow_pickle=True)
    with pytest.raises(DataFormatError, match=f"_depth(_mask)?.npy: .*{reason}"):
        open_at(root)[0]


def test_empty_mask_and_shapes_that_disagree(root):
    np.save(root / f"{NAMES[0]}_depth_mask.npy", 0 * MASK)
    with pytest.raises(DataFormatError, match="_depth.npy: .*no valid depth"):
        open_at(root)[0]
    np.save(root / f"{NAMES[0]}_depth_mask.npy", MASK[:1])
    np.save(root / f"{NAMES[0]}_depth.npy", DEPTH[:1])
    with pytest.raises(DataFormatError, match="_depth.npy: 1 x 3 .* has 2 x 3"):
        open_at(root)[0]


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated(root, kept):
    for path in (root / f"{NAMES[0]}_depth_mask.npy", root / f"{NAMES[1]}_depth.npy"):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataFormatError, match=path.name):
            open_at(root)[0 if "mask" in path.name else 1]


def test_quantities_not_asked_for_are_not_read(root):
    (root / f"{NAMES[0]}_depth.npy").unlink()
    assert open_at(root, quantities=frozenset())[0].depth is None
