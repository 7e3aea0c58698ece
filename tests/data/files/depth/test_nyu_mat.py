"""NYUv2 in MATLAB's files: HDF5 with the axes in reverse, and splits that count from 1."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from stepsight.data.readers.config import NyuMatSettings
from stepsight.data.readers.depth.nyu_mat import NyuMat
from stepsight.errors import DataFormatError, UserError

FRAMES, HEIGHT, WIDTH = 4, 3, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)  # as one looks at them
FILLED = (RNG.random((FRAMES, HEIGHT, WIDTH)) * 9 + 0.7).astype(np.float32)
RAW = np.where(RNG.random(FILLED.shape) < 0.3, 0, FILLED).astype(np.float32)


def write_frames(root, **changed):
    """MATLAB's h w 3 n, column by column, is n 3 w h to those who read row by row."""
    arrays = {
        "images": IMAGES.transpose(0, 3, 2, 1),
        "depths": FILLED.transpose(0, 2, 1),
        "rawDepths": RAW.transpose(0, 2, 1),
    }
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in (arrays | changed).items():
            if values is not None:
                file.create_dataset(name, data=values)
    return path


def write_splits(root, train=(2, 3), test=(1, 4), compress=False, dtype=float):
    columns = {
        "trainNdxs": np.array(train, dtype)[:, None],
        "testNdxs": np.array(test, dtype)[:, None],
    }
    savemat(root / "splits.mat", columns, do_compression=compress)
    return root / "splits.mat"


@pytest.fixture
def root(tmp_path):
    write_frames(tmp_path)
    write_splits(tmp_path)
    return tmp_path


def open_at(root, split="all", quantities=None, **options):
    return NyuMat(NyuMatSettings(root=str(root), **options), split, quantities)


def test_axes_are_turned_back(root):
    for option, depths in {"raw": RAW, "filled": FILLED}.items():
        for number, sample in enumerate(open_at(root, depth=option).samples(range(FRAMES))):
            assert torch.equal(sample.image.permute(1, 2, 0), torch.from_numpy(IMAGES[number]))
            assert torch.equal(sample.depth[0], torch.from_numpy(depths[number]))
            assert torch.equal(sample.depth_valid, sample.depth > 0)
            assert sample.key == f"000{number + 1}" and sample.image.is_contiguous()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [float, np.uint16, np.uint8, np.int64, np.float32])
def test_splits_count_from_one(root, compress, dtype):
    write_splits(root, train=(2, 3, 1), test=(4,), compress=compress, dtype=dtype)
    assert [s.key for s in open_at(root, "train").samples(range(3))] == ["0002", "0003", "0001"]
    assert [s.key for s in open_at(root, "test").samples([0])] == ["0004"]
    with pytest.raises(UserError, match=r"no split 'val' .*train 3, test 1, all 4"):
        open_at(root, "val")


def test_all_does_without_the_splits(root):
    (root / "splits.mat").unlink()
    assert len(open_at(root)) == 4
    with pytest.raises(UserError, match="splits.mat not found. Only split 'all'"):
        open_at(root, "test")


@pytest.mark.parametrize("wrong", [0, 5, -1, 1.5, float("nan")])
def test_numbers_of_frames_that_are_not_there(root, wrong):
    write_splits(root, test=(1, wrong))
    with pytest.raises(DataFormatError, match="splits.mat: testNdxs has .* frames are 1 to 4"):
        open_at(root, "test")


def test_malformed_splits(root):
    path = write_splits(root, train=())
    with pytest.raises(UserError, match="split 'train' .* is empty"):
        open_at(root, "train")
    savemat(path, {"trainNdxs": np.ones((2, 1)), "names": "text"})
    with pytest.raises(DataFormatError, match="splits.mat: no array 'testNdxs'"):
        open_at(root, "train")
    for data in (b"", b"\x89HDF\r\n\x1a\n" * 20, write_splits(root).read_bytes()[:200]):
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match="splits.mat: "):
            open_at(root, "train")


@pytest.mark.parametrize("compress", [False, True])
def test_flipped_bits_never_crash(root, compress):
    path = write_splits(root, compress=compress)
    data, refused = path.read_bytes(), 0
    for bit in range(8 * 120, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            open_at(root, "train", frozenset())
        except UserError as error:
            refused += 1
            assert "splits.mat" in str(error) or "is empty" in str(error)
    assert refused > 100


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"images": None}, "no array 'images'"),
        ({"images": np.zeros((4, 3, 5, 3), np.uint16)}, "3 x 5 x 3 of uint16, not 3 x w x h"),
        ({"images": np.zeros((4, 5, 3), np.uint8)}, "5 x 3 of uint8, not 3 x w x h"),
        ({"images": np.zeros((0, 3, 5, 3), np.uint8)}, "split 'all' .* is empty"),
        ({"rawDepths": None}, "no array 'rawDepths'"),
        ({"rawDepths": RAW}, "5 x 3 pixels, where its image has 3 x 5"),
        ({"rawDepths": RAW[:, None]}, "3 axes of float32"),
        ({"rawDepths": RAW[0, 0]}, "0 axes of float32"),
        ({"rawDepths": RAW[:0].transpose(0, 2, 1)}, "0 items, no item"),
        ({"rawDepths": np.zeros((4, 5, 3), np.uint16)}, "2 axes of uint16"),
        ({"rawDepths": np.full((4, 5, 3), np.nan)}, "frame 1: holds NaN"),
        ({"rawDepths": np.zeros((4, 5, 3))}, "frame 1: holds no valid depth"),
        ({"rawDepths": np.full((4, 5, 3), 1e300)}, "frame 1: holds no valid depth"),
    ],
)
def test_malformed_arrays(root, changed, reason):
    write_frames(root, **changed)
    with pytest.raises(UserError, match=f"(nyu_depth_v2_labeled.mat|nyuv2_mat).*{reason}"):
        open_at(root)[0]


def test_truncated(root):
    path = root / "nyu_depth_v2_labeled.mat"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataFormatError, match="labeled.mat: "):
        open_at(root)


def test_quantities_not_asked_for_are_not_read(root):
    write_frames(root, rawDepths=None)
    assert open_at(root, quantities=frozenset())[0].depth is None
