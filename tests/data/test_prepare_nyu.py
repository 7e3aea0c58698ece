"""NYUv2's .mat files, written here as MATLAB lays them out, extracted to PNG files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.data.prepare.nyu import nyu
from stepsight.errors import DataFormatError, UserError

SCENES = ("kitchen_0004", "kitchen_0004", "office_0001", "bath_2")
HEIGHT, WIDTH = 6, 8


def write_mat(path: Path, images, depths, raw, scenes=SCENES) -> None:
    """MATLAB's order: the item first, then columns before rows; text as references to codes."""
    with h5py.File(path, "w") as file:
        file["images"], file["depths"], file["rawDepths"] = images, depths, raw
        for i, scene in enumerate(scenes):
            file[f"#refs#/{i}"] = np.array([[ord(c)] for c in scene], np.uint16)
        references = [[file[f"#refs#/{i}"].ref for i in range(len(scenes))]]
        file.create_dataset("scenes", data=references, dtype=h5py.ref_dtype)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    depths = rng.uniform(0.7, 10, (4, WIDTH, HEIGHT)).astype(np.float32)
    raw = np.where(rng.random(depths.shape) < 0.3, 0, depths).astype(np.float32)
    images = rng.integers(0, 256, (4, 3, WIDTH, HEIGHT), np.uint8)
    return {"images": images, "depths": depths, "raw": raw}


@pytest.fixture
def root(tmp_path: Path, arrays) -> Path:
    folder = tmp_path / "nyu"
    folder.mkdir()
    write_mat(folder / "nyu_depth_v2_labeled.mat", **arrays)
    splits = {"trainNdxs": np.array([[4], [2]]), "testNdxs": np.array([[1], [3]])}
    savemat(folder / "splits.mat", splits)
    return folder


def prepare(root, out, **options):
    options.setdefault("report", lambda line: None)
    return nyu(root, out, **options)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_frames_land_in_their_scene_upright_and_in_millimetres(root, arrays, tmp_path):
    out = tmp_path / "out"
    manifest = prepare(root, out)
    assert manifest.counts == {"train": 2, "test": 2}
    folder = out / "test/office_0001"  # frame 3, the third item
    np.testing.assert_array_equal(
        pixels(folder / "rgb_0003.png"), arrays["images"][2].transpose(2, 1, 0)
    )
    for name, key in (("depth", "raw"), ("filled", "depths")):
        found, truth = pixels(folder / f"{name}_0003.png"), arrays[key][2].T
        assert found.dtype == np.uint16 and found.shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(found, np.floor(truth * np.float32(1000)))
    assert (pixels(folder / "depth_0003.png") == 0).any()
    names = [f"test/kitchen_0004/{kind}_0001.png" for kind in ("rgb", "depth", "filled")]
    assert (out / "filename_list_test.txt").read_text().splitlines()[0] == " ".join(names)


def test_the_reader_opens_what_was_prepared(root, arrays, tmp_path):
    from stepsight import data

    prepare(root, tmp_path / "out")
    for depth, key in (("raw", "raw"), ("filled", "depths")):
        source = data.open("nyuv2", str(tmp_path / "out"), split="test", depth=depth)
        sample = source[1]
        assert len(source) == 2 and sample.depth is not None and sample.depth_valid is not None
        truth = arrays[key][2].T
        assert np.abs(sample.depth[0].numpy() - truth).max() <= 1e-3
        assert (~sample.depth_valid[0].numpy()[truth == 0]).all()


def test_a_run_that_stopped_continues(root, arrays, tmp_path):
    reference = prepare(root, tmp_path / "reference")
    broken = arrays | {"raw": arrays["raw"].copy()}
    broken["raw"][1, 0, 0] = np.nan  # frame 2
    write_mat(root / "nyu_depth_v2_labeled.mat", **broken)
    with pytest.raises(DataFormatError, match="labeled.mat.*rawDepths.*2.*NaN"):
        prepare(root, tmp_path / "out")
    partial = prepare(root, tmp_path / "out", strict=False)
    assert list(partial.damaged) == ["0002"] and partial.counts == {"train": 1, "test": 2}
    write_mat(root / "nyu_depth_v2_labeled.mat", **arrays)
    assert prepare(root, tmp_path / "out") == reference


@pytest.mark.parametrize(
    ("trains", "tests"), [([0, 2], [1, 3]), ([4, 5], [1, 3]), ([1, 2], [1, 3])]
)
def test_splits_that_do_not_fit_are_refused(root, tmp_path, trains, tests):
    savemat(root / "splits.mat", {"trainNdxs": trains, "testNdxs": tests})
    with pytest.raises(DataFormatError, match="splits.mat|0001 would be made 2 times"):
        prepare(root, tmp_path / "out")


def test_damaged_files_are_refused_by_name(root, arrays, tmp_path):
    path = root / "nyu_depth_v2_labeled.mat"
    write_mat(path, **arrays, scenes=("../../etc", *SCENES[1:]))
    with pytest.raises(DataFormatError, match="labeled.mat.*scenes"):
        prepare(root, tmp_path / "out")
    write_mat(path, arrays["images"].astype(np.uint16), arrays["depths"], arrays["raw"])
    with pytest.raises(DataFormatError, match="labeled.mat.*uint16"):
        prepare(root, tmp_path / "out")
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(DataFormatError, match="labeled.mat.*damaged"):
        prepare(root, tmp_path / "out")
    path.write_bytes(whole)
    (root / "splits.mat").write_bytes(b"no such thing" * 20)
    with pytest.raises(DataFormatError, match="splits.mat"):
        prepare(root, tmp_path / "out")
    (root / "splits.mat").unlink()
    with pytest.raises(UserError, match="splits.mat"):
        prepare(root, tmp_path / "out")


def test_a_picture_is_decoded_once(root, tmp_path, monkeypatch):
    read: list[str] = []

    def counted(path, key, index=None):
        read.append(key)
        return read_hdf5(path, key, index)

    monkeypatch.setattr("stepsight.data.readers.depth.nyu_mat.read_hdf5", counted)
    prepare(root, tmp_path / "out")
    assert sorted(read) == sorted(["images", "rawDepths", "depths"] * 4)
