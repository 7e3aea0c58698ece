"""Spring: written here."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import SpringSettings
from stepsight.data.readers.flow.spring import Spring
from stepsight.errors import DataFormatError, UserError

h5py = pytest.importorskip("h5py")
FRAMES = (1, 2, 3)


def write_flow(path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("flow", data=values, compression="gzip", compression_opts=5)


@pytest.fixture
def root(tmp_path, write_png):
    """Image n is filled with n. Flow at (row, column) of its 6 x 8 grid: (column, 10 n + row)."""
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    for split, scene in (("train", "0001"), ("train", "0004"), ("test", "0003")):
        for camera in ("left", "right"):
            for n in FRAMES:
                base = tmp_path / split / scene
                picture = np.full((3, 4, 3), n, np.uint8)
                write_png(base / f"frame_{camera}/frame_{camera}_{n:04d}.png", picture)
                for way in () if split == "test" else ("FW", "BW"):
                    name = f"flow_{way}_{camera}"
                    flow = np.stack([columns, 10 * n + rows], axis=-1)
                    write_flow(base / name / f"{name}_{n:04d}.flo5", flow)
    return tmp_path


def open_at(root, split="train", quantities=None, **options):
    return Spring(SpringSettings(root=str(root), **options), split, quantities)


def test_flow_is_taken_at_every_second_row_and_column(root):
    sample = open_at(root)[1]
    assert sample.key == "0001/flow_FW_left_0002" and sample.flow_valid.all()
    assert sample.flow[0].tolist() == [[0, 2, 4, 6]] * 3
    assert sample.flow[1, :, 0].tolist() == [20, 22, 24]


def test_directions(root):
    source = open_at(root, direction="both")
    pairs = [(int(s.image[0, 0, 0]), int(s.second[0, 0, 0])) for s in source]
    assert pairs == [(1, 2), (2, 3)] * 2 + [(2, 1), (3, 2)] * 2
    assert [s.key[-4:] for s in source][4:6] == ["0002", "0003"]
    assert source.published == {"train": 9926}


def test_cameras(root):
    keys = [s.key for s in open_at(root, camera="both", direction="BW")]
    assert len(set(keys)) == 8 and keys[4] == "0001/flow_BW_right_0002"


def test_nan_is_invalid_and_reads_as_zero(root):
    values = np.ones((6, 8, 2), np.float16)
    values[2, 4, 1], values[1, 1] = np.nan, np.nan  # the second is not on the grid of the image
    write_flow(root / "train/0001/flow_FW_left/flow_FW_left_0001.flo5", values)
    sample = open_at(root)[0]
    assert (~sample.flow_valid).nonzero().tolist() == [[0, 1, 2]]
    assert sample.flow[:, 1, 2].tolist() == [0, 0] and sample.flow.isfinite().all()


def test_test_split_has_nothing_to_score(root):
    source = open_at(root, "test")
    assert source.quantities == frozenset() and len(source) == 2
    assert source[0].second is not None and source[0].flow is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((6, 6, 2)), "3 x 3 pixels"),
        (np.ones((3, 4, 2)), "where .2h, 2w, 2. belongs"),
        (np.ones((6, 8)), "where .2h, 2w, 2. belongs"),
        (np.full((6, 8, 2), np.nan), "no valid flow"),
        (np.full((6, 8, 2), b"x"), "no array of numbers"),
    ],
)
def test_malformed_flow(root, values, reason):
    path = root / "train/0001/flow_FW_left/flow_FW_left_0001.flo5"
    write_flow(path, values)
    with pytest.raises(DataFormatError, match=f"flow_FW_left_0001.flo5: .*{reason}"):
        open_at(root)[0]


def test_damaged_files(root):
    path = root / "train/0001/flow_FW_left/flow_FW_left_0001.flo5"
    whole = path.read_bytes()
    for data in (b"", whole[:-200], b"PIEH" + whole[4:]):
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match="flow_FW_left_0001.flo5: (not an|damaged) HDF5"):
            open_at(root)[0]
    path.unlink()
    with h5py.File(path, "w") as file:
        file["disparity"] = np.ones((6, 8))
    with pytest.raises(DataFormatError, match="no array 'flow' .it has: disparity"):
        open_at(root)[0]


def test_missing_files_and_splits(root):
    with pytest.raises(UserError, match="no split 'val' .*train 4, all 4"):
        open_at(root, "val")
    (root / "train/0004/flow_FW_left/flow_FW_left_0002.flo5").unlink()
    with pytest.raises(UserError, match="flow_FW_left_0002.flo5 is missing"):
        open_at(root)
