"""HDF5 arrays: numbers of the file itself, and a named error for everything else."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stepsight.data.decoding import hdf5
from stepsight.data.decoding.hdf5 import read_hdf5, shape_hdf5
from stepsight.errors import DataFormatError, UserError

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
    """`images` (2, 3, 4) as MATLAB stores them, behind a user block; a group and a text beside."""
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["images"] = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        file["group/x"] = np.zeros(2)
        file["text"] = "hello"
        file["one"] = 1.0
    return tmp_path / "a.mat"


def test_whole_and_by_item(path):
    assert shape_hdf5(path, "images") == (2, 3, 4)
    assert read_hdf5(path, "images").tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    assert read_hdf5(path, "images", 1).tolist() == np.arange(12, 24).reshape(3, 4).tolist()
    assert read_hdf5(path, "group/x").dtype == np.float64


@pytest.mark.parametrize("index", [2, -1])
def test_items_that_are_not_there(path, index):
    with pytest.raises(DataFormatError, match=f"a.mat: 'images' has 2 items, no item {index}"):
        read_hdf5(path, "images", index)


@pytest.mark.parametrize("key", ["none", "group", "text", "one", "group/none/deeper"])
def test_keys_that_are_no_arrays(path, key):
    with pytest.raises(DataFormatError, match="a.mat: .*(no array|damaged)"):
        read_hdf5(path, key)


def test_arrays_of_other_files_are_left_alone(tmp_path, path):
    (tmp_path / "secret").write_bytes(bytes(80))
    layout = h5py.VirtualLayout((3, 4), np.uint8)
    layout[:] = h5py.VirtualSource(str(path), "images", (2, 3, 4))[0]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(path), "images")
        file.create_dataset("raw", (10,), "f8", external=[(str(tmp_path / "secret"), 0, 80)])
        file.create_virtual_dataset("virtual", layout)
    for key, reason in (("link", "no array"), ("raw", "other files"), ("virtual", "other files")):
        with pytest.raises(DataFormatError, match=f"b.h5: .*{reason}"):
            read_hdf5(tmp_path / "b.h5", key)


def test_claims_beyond_memory_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (1 << 20, 1 << 20), "f4", chunks=(16, 16))
        file.create_dataset("chunk", (64, 64), "f4", chunks=(64, 64))
    with pytest.raises(DataFormatError, match="a.h5: /x, float32 of .* would take .* MB to read"):
        read_hdf5(tmp_path / "a.h5", "x")
    monkeypatch.setattr(hdf5, "limit", lambda: 1 << 10)
    with pytest.raises(DataFormatError, match=r"in chunks of \(64, 64\)"):
        read_hdf5(tmp_path / "a.h5", "chunk", 0)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.3, 0.9])
def test_cut_off(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataFormatError, match="a.mat: (not an HDF5|damaged)"):
        read_hdf5(path, "images")


def test_missing_file_and_missing_library(path, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="none.h5: cannot be read"):
        read_hdf5(tmp_path / "none.h5", "x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"h5py: uv sync --extra data"):
        read_hdf5(path, "images")


def test_real_hypersim_distance(real_samples):
    folder = real_samples("hypersim_raw")
    values = read_hdf5(next(folder.rglob("*.depth_meters.hdf5")), "dataset")
    assert values.dtype == np.float16 and values.shape == (768, 1024)
    assert float(values.min()) == pytest.approx(2.9609, abs=1e-4)
    assert float(values.max()) == pytest.approx(13.2344, abs=1e-4)


@pytest.mark.parametrize("error", [OverflowError, MemoryError])
def test_what_h5py_makes_of_absurd_sizes_is_damage(path, error):
    with pytest.raises(DataFormatError, match="a.mat: damaged HDF5"), hdf5.open_hdf5(path):
        raise error("Python int too large")
