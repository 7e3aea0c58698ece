"""Hypersim as published: HDF5 files written here, and a real one."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.readers.config import HypersimRawSettings
from stepsight.data.readers.depth.hypersim_raw import HypersimRaw, ray_to_planar, tone_map
from stepsight.errors import DataFormatError, UserError

TABLE = "metadata_images_split_scene_v1.csv"
HEADER = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,"
HEADER += "split_partition_name\n"
SIZE = (6, 8)
RAY = np.linspace(1, 9, 48, dtype=np.float16).reshape(SIZE)
RAY[0, 1] = np.nan


def write_hdf5(path, values, key="dataset"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=values, compression="gzip")
    return path


def paths(root, scene="ai_001_001", number=0):
    images, frame = root / scene / "images", f"frame.{number:04d}"
    return {
        "depth": images / "scene_cam_00_geometry_hdf5" / f"{frame}.depth_meters.hdf5",
        "ids": images / "scene_cam_00_geometry_hdf5" / f"{frame}.render_entity_id.hdf5",
        "colour": images / "scene_cam_00_final_hdf5" / f"{frame}.color.hdf5",
        "preview": images / "scene_cam_00_final_preview" / f"{frame}.tonemap.jpg",
    }


def write_frame(root, scene, number):
    rng = np.random.default_rng(number)
    files = paths(root, scene, number)
    write_hdf5(files["depth"], RAY)
    write_hdf5(files["ids"], np.where(rng.random(SIZE) < 0.2, -1, 5).astype(np.int16))
    write_hdf5(files["colour"], (rng.random((*SIZE, 3)) * 3 - 0.2).astype(np.float16))


@pytest.fixture
def root(tmp_path):
    for scene, number in (("ai_001_001", 0), ("ai_001_001", 7), ("ai_003_002", 0)):
        write_frame(tmp_path, scene, number)
    return tmp_path


def open_at(root, split="all", quantities=None):
    return HypersimRaw(HypersimRawSettings(root=str(root)), split, quantities)


def slow_planar(ray, row, column, height, width):
    """The last side of the triangle: the ray's direction in the camera's coordinates."""
    focal = (width / 2) / math.tan(math.radians(30))
    x, y = column + 0.5 - width / 2, row + 0.5 - height / 2
    return ray * math.cos(math.atan2(math.hypot(x, y), focal))


@pytest.mark.parametrize("size", [(768, 1024), (6, 8), (5, 9)])
def test_ray_distance_becomes_planar_depth(size):
    ray = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)) * 10 + 1
    planar = ray_to_planar(ray)
    for row, column in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, 1), (1, size[1] // 2)):
        expected = slow_planar(ray[0, row, column].item(), row, column, *size)
        assert planar[0, row, column].item() == pytest.approx(expected, rel=1e-5)


def test_corner_factor():
    assert ray_to_planar(torch.ones(768, 1024))[0, 0].item() == pytest.approx(0.8112, abs=1e-4)


def slow_tone_map(rgb, ids):
    """Pixel by pixel, from the rules of the data set's tools."""
    hit = [(i, j) for i in range(ids.shape[0]) for j in range(ids.shape[1]) if ids[i, j] != -1]
    brightness = sorted(float(rgb[i, j] @ np.array([0.3, 0.59, 0.11])) for i, j in hit)
    if brightness:
        place = 0.9 * (len(brightness) - 1)
        low, high = brightness[math.floor(place)], brightness[math.ceil(place)]
        percentile = low + (high - low) * (place - math.floor(place))
        scale = 0.8**2.2 / percentile if percentile >= 1e-4 else 0.0
    else:
        scale = 1.0
    return np.clip(np.maximum(scale * rgb, 0) ** (1 / 2.2), 0, 1) * 255


@pytest.mark.parametrize("missed", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gain", [0.0, 1e-5, 1.0, 50.0])
def test_tone_mapping(gain, missed):
    rng = np.random.default_rng(1)
    rgb = gain * (rng.random((9, 11, 3)) - 0.1)
    ids = np.where(rng.random((9, 11)) < missed, -1, 3)
    picture = tone_map(torch.from_numpy(rgb).float().permute(2, 0, 1), torch.from_numpy(ids)[None])
    assert picture.dtype == torch.uint8 and picture.shape == (3, 9, 11)
    exact = slow_tone_map(rgb, ids).transpose(2, 0, 1)
    # Truncated: at most what the rule gives, and less than one below, but for rounding.
    assert (picture.numpy() <= exact + 1e-3).all() and (picture.numpy() > exact - 1 - 1e-3).all()


def test_infinite_colours_saturate():
    rgb = torch.full((3, 2, 2), 0.5)
    rgb[:, 0, 0] = torch.inf
    rgb[:, 0, 1] = -torch.inf
    ids = torch.tensor([[[-1, -1], [1, 1]]])
    picture = tone_map(rgb, ids)
    assert picture[:, 0].tolist() == [[255, 0]] * 3
    dark = torch.where(rgb.isinf(), rgb, 0.0)
    assert not tone_map(dark, ids).any()  # nothing that was hit is lit


def test_a_frame(root):
    sample = open_at(root)[0]
    assert sample.key == "ai_001_001/cam_00_fr0000" and sample.source == "hypersim_raw"
    with h5py.File(paths(root)["ids"]) as file, h5py.File(paths(root)["colour"]) as lit:
        ids, colours = file["dataset"][()], lit["dataset"][()].astype(np.float32)
    expected = tone_map(torch.from_numpy(colours).permute(2, 0, 1), torch.from_numpy(ids)[None])
    assert torch.equal(sample.image, expected)
    hit = ~np.isnan(RAY) & (ids != -1)
    assert sample.depth_valid[0].tolist() == hit.tolist() != (~np.isnan(RAY)).tolist()
    assert (sample.depth[0][~hit] == 0).all() and sample.depth.isfinite().all()
    for row, column in np.argwhere(hit)[[0, -1]]:
        expected = slow_planar(float(RAY[row, column]), row, column, *SIZE)
        assert sample.depth[0, row, column].item() == pytest.approx(expected, rel=1e-5)


def test_preview_stands_in_for_colours(root):
    files = paths(root)
    files["preview"].parent.mkdir()
    Image.new("RGB", (8, 6), (200, 200, 200)).save(files["preview"])
    assert not (open_at(root)[0].image == 200).all()
    files["colour"].unlink()
    assert not open_at(root)[0].depth_valid.all()  # the entities still say what was hit
    files["ids"].unlink()
    sample = open_at(root)[0]
    assert (sample.image == 200).all()
    assert sample.depth_valid[0].tolist() == (~np.isnan(RAY)).tolist()
    Image.new("RGB", (8, 5)).save(files["preview"])
    with pytest.raises(DataFormatError, match="depth_meters.hdf5: 6 x 8 pixels"):
        open_at(root)[0]
    files["preview"].unlink()
    with pytest.raises(UserError, match="frame.0000.color.hdf5: cannot be read"):
        open_at(root)[0]


@pytest.mark.parametrize("folder", ["", "evermotion_dataset/analysis"])
def test_splits_by_table(root, folder):
    rows = [
        "001_001,cam_00,0,True,,train",
        "001_001,cam_00,7,False,firefly,",
        "003_002,cam_00,0,True,,val",
    ]
    (root / folder).mkdir(parents=True, exist_ok=True)
    text = HEADER + "".join(f"ai_{row}\n" for row in [*rows, "009_001,cam_03,99,True,,val"])
    (root / folder / TABLE).write_text(text)
    assert [len(open_at(root, split)) for split in ("train", "val", "all")] == [1, 1, 2]
    assert open_at(root, "val")[0].key == "ai_003_002/cam_00_fr0000"
    with pytest.raises(
        UserError, match=r"split 'test' .* is empty \(train 1, val 1, test 0, all 2"
    ):
        open_at(root, "test")


def test_without_a_table(root):
    assert len(open_at(root)) == 3
    with pytest.raises(UserError, match=r"no split 'train' .*all 3"):
        open_at(root, "train")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no columns camera_name"),
        (HEADER.replace("frame_id", "frame"), "no columns frame_id"),
        (f"{HEADER}ai_001_001,cam_00,zero,True,,train\n", "line 2: 'zero' is no frame number"),
        (f"{HEADER}ai_001_001,cam_00\n", "line 2: '' is no frame number"),
        (f"{HEADER}\xff", "line 2|cannot be read as a table"),
    ],
)
def test_malformed_table(root, text, reason):
    (root / TABLE).write_bytes(text.encode("latin1"))
    with pytest.raises(DataFormatError, match=f"{TABLE}.*({reason})"):
        open_at(root)


@pytest.mark.parametrize(
    ("part", "values", "reason"),
    [
        ("depth", RAY[:3], "3 x 8 pixels, where its image has 6 x 8"),
        ("depth", RAY[None], "1 x 6 x 8 values .* are no plane"),
        ("depth", np.full(SIZE, np.nan, np.float16), "no valid depth"),
        ("depth", np.full(SIZE, np.inf, np.float16), "no valid depth"),
        ("depth", np.zeros(SIZE, np.float16), "no valid depth"),
        ("colour", RAY, "6 x 8 values are no picture in colour"),
        ("colour", np.dstack([RAY] * 3), "holds NaN"),
        ("ids", np.zeros(SIZE, np.int16), "holds the id 0"),
        ("ids", np.ones((6, 7), np.int16), "6 x 7 pixels, where its image has 6 x 8"),
        ("ids", np.ones(SIZE, np.float32), "float32 are no plane of int64"),
    ],
)
def test_malformed_arrays(root, part, values, reason):
    path = write_hdf5(paths(root)[part], values)
    with pytest.raises(DataFormatError, match=f"{path.name}: .*{reason}"):
        open_at(root)[0]


@pytest.mark.parametrize("part", ["depth", "colour", "ids"])
def test_damaged_files(root, part):
    path = paths(root)[part]
    write_hdf5(path, RAY, key="other")
    with pytest.raises(DataFormatError, match=f"{path.name}: no array 'dataset'"):
        open_at(root)[0]
    for data in (path.read_bytes()[: path.stat().st_size // 2], b"", b"PIEH" * 9):
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match=path.name):
            open_at(root)[0]


def test_big_endian_and_other_widths(root):
    write_hdf5(paths(root)["depth"], RAY.astype(">f4"))
    for number in (0, 7):
        write_hdf5(paths(root, number=number)["ids"], np.full(SIZE, 9, ">i4"))
    write_hdf5(
        paths(root, number=7)["depth"], np.where(np.isnan(RAY), 1e300, RAY.astype(np.float64))
    )
    for sample in open_at(root).samples([0, 1]):
        assert sample.depth_valid[0].tolist() == (~np.isnan(RAY)).tolist()


def test_quantities_not_asked_for_are_not_read(root):
    paths(root)["depth"].write_bytes(b"")
    assert open_at(root, quantities=frozenset({"flow"}))[0].depth is None


def test_real_file(real_samples, tmp_path):
    folder = "ai_037_002/images/scene_cam_00_geometry_hdf5"
    real = real_samples("hypersim_raw") / folder / "frame.0000.depth_meters.hdf5"
    files = paths(tmp_path, "ai_037_002")
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    files["depth"].symlink_to(real)
    Image.new("RGB", (1024, 768)).save(files["preview"])
    sample = open_at(tmp_path)[0]
    depth = sample.depth[0]
    assert sample.depth_valid.all() and depth.shape == (768, 1024)
    assert (depth.min().item(), depth.max().item()) == pytest.approx((2.66285, 12.96505), abs=1e-5)
    assert depth.double().mean().item() == pytest.approx(5.55002, abs=1e-5)
    assert depth[0, 0].item() == pytest.approx(5.10478, abs=1e-5)
    assert depth[384, 512].item() == pytest.approx(7.88281, abs=1e-5)
