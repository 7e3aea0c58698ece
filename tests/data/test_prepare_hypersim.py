"""Hypersim's HDF5 files, written here at small size, into Marigold's PNG layout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.prepare.hypersim import hypersim
from stepsight.data.readers.depth.hypersim_raw import ray_to_planar, read_plane
from stepsight.data.readers.listed import to_millimetres
from stepsight.errors import DataFormatError, UserError

HEIGHT, WIDTH = 12, 16
TABLE = "metadata_images_split_scene_v1.csv"
COLUMNS = (
    "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
)
SAMPLES = Path(
    os.environ.get("STEPSIGHT_SAMPLES", Path(__file__).parents[3] / "shared" / "samples")
)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", data=values, compression="gzip")


def write_frame(root: Path, scene: str, number: int, **changes: np.ndarray) -> None:
    """One frame of camera 00; `changes` replaces colour, depth or ids."""
    rng = np.random.default_rng(number)
    arrays = {
        "colour": rng.random((HEIGHT, WIDTH, 3)).astype(np.float16),
        "depth": (1 + 4 * rng.random((HEIGHT, WIDTH))).astype(np.float16),
        "ids": np.ones((HEIGHT, WIDTH), np.int16),
    } | changes
    images = root / scene / "images"
    frame = f"frame.{number:04d}"
    save(images / "scene_cam_00_final_hdf5" / f"{frame}.color.hdf5", arrays["colour"])
    geometry = images / "scene_cam_00_geometry_hdf5"
    save(geometry / f"{frame}.depth_meters.hdf5", arrays["depth"])
    save(geometry / f"{frame}.render_entity_id.hdf5", arrays["ids"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two frames to train on, one to validate, one not public, one in a scene not downloaded."""
    folder = tmp_path / "hypersim"
    frames = [
        ("ai_001_001", 0, True, "train"),
        ("ai_001_001", 1, True, "train"),
        ("ai_001_001", 2, False, ""),
        ("ai_002_001", 0, True, "val"),
    ]
    for scene, number, _, _ in frames:
        write_frame(folder, scene, number)
    frames.append(("ai_003_001", 0, True, "test"))
    rows = [f"{scene},cam_00,{number},{public},,{split}" for scene, number, public, split in frames]
    (folder / TABLE).write_text("\n".join([COLUMNS, *rows]))
    return folder


def prepare(root, out, **options):
    options.setdefault("report", lambda line: None)
    return hypersim(root, out, **options)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def planar(distance: np.ndarray) -> np.ndarray:
    """Pixel by pixel, from the formula of the data set's documentation."""
    height, width = distance.shape
    focal = 886.81 * width / 1024
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            x, y = j - width / 2 + 0.5, i - height / 2 + 0.5
            found[i, j] = float(distance[i, j]) * focal / np.sqrt(x**2 + y**2 + focal**2)
    return found


def test_public_frames_land_in_their_split_with_planar_millimetres(root, tmp_path):
    out = tmp_path / "out"
    manifest = prepare(root, out)
    assert manifest.counts == {"train": 2, "val": 1}
    line = "ai_001_001/rgb_cam_00_fr0001.png ai_001_001/depth_plane_cam_00_fr0001.png"
    assert (out / "filename_list_train.txt").read_text().splitlines()[1] == line
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert names == {*manifest.files, "manifest.json"} and len(names) == 3 * 2 + 2 + 1
    depth = pixels(out / "train/ai_001_001/depth_plane_cam_00_fr0001.png")
    with h5py.File(
        root / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0001.depth_meters.hdf5"
    ) as file:
        truth = planar(np.array(file["dataset"]))
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, np.floor(truth * 1000))


def test_colours_are_tone_mapped_by_the_official_rule(root, tmp_path):
    rng = np.random.default_rng(0)
    colour = (3 * rng.random((HEIGHT, WIDTH, 3))).astype(np.float16)
    ids = np.ones((HEIGHT, WIDTH), np.int16)
    ids[0, :4] = -1
    colour[0, :4] = 1000  # bright, but nothing: outside the percentile
    write_frame(root, "ai_001_001", 0, colour=colour, ids=ids)
    prepare(root, tmp_path / "out")
    rgb = colour.astype(np.float64)
    brightness = 0.3 * rgb[..., 0] + 0.59 * rgb[..., 1] + 0.11 * rgb[..., 2]
    scale = 0.8**2.2 / np.percentile(brightness[ids != -1], 90)
    wanted = np.clip((scale * rgb) ** (1 / 2.2), 0, 1) * 255
    found = pixels(tmp_path / "out/train/ai_001_001/rgb_cam_00_fr0000.png")
    assert np.abs(found - np.floor(wanted)).max() <= 1
    assert (found == np.floor(wanted)).mean() > 0.99


def test_what_cannot_be_stored_is_invalid_and_never_wraps(root, tmp_path):
    depth = np.full((HEIGHT, WIDTH), 10, np.float16)
    depth[0, 0] = 2
    depth[5, :2] = 80, np.nan
    ids = np.ones((HEIGHT, WIDTH), np.int16)
    ids[6, 0] = -1
    write_frame(root, "ai_001_001", 0, depth=depth, ids=ids)
    prepare(root, tmp_path / "out")
    found = pixels(tmp_path / "out/train/ai_001_001/depth_plane_cam_00_fr0000.png")
    assert (found[5, 0], found[5, 1], found[6, 0]) == (0, 0, 0)
    assert (found == 0).sum() == 3


def test_millimetres_at_the_edges():
    depth = torch.tensor([[[0.0, -1.0, 0.0004, 1.0, 65.5, 65.5355, 65.5365, 131.0, torch.nan]]])
    found = to_millimetres(depth.double(), torch.ones_like(depth, dtype=torch.bool))
    assert found.dtype == torch.uint16
    assert found.flatten().tolist() == [0, 0, 0, 1000, 65500, 65535, 0, 0, 0]


def test_the_published_frame_gives_its_golden_values():
    geometry = "ai_037_002/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    if not (path := SAMPLES / "hypersim_raw" / geometry).is_file():
        pytest.skip(f"{path} is absent")
    distance = read_plane(path, np.float64)
    depth = to_millimetres(ray_to_planar(distance), distance > 0).int()[0]
    assert (int(depth.min()), int(depth.max())) == (2662, 12965)
    assert (int(depth[0, 0]), int(depth[384, 512])) == (5104, 7882)


FLAT = np.full((HEIGHT, WIDTH), 2, np.float16)
HOLES = (1 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) / 50).astype(np.float16)
HOLES[3, :6] = np.nan  # 6 of 192 are 3.1 %
GREY = np.full((HEIGHT, WIDTH, 3), 0.5, np.float16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": FLAT}, "depth spans 0"),
        ({"depth": HOLES}, "3.1% of the pixels have no depth"),
        ({"colour": GREY}, "colours span 0 of 255"),
    ],
)
def test_the_rule_leaves_out_frames_that_show_little(root, tmp_path, change, reason):
    write_frame(root, "ai_001_001", 1, **change)
    manifest = prepare(root, tmp_path / "out")
    assert manifest.counts == {"train": 1, "val": 1} and not manifest.damaged
    assert reason in manifest.left_out["ai_001_001/cam_00_fr0001"]
    assert not list((tmp_path / "out").rglob("*fr0001.png"))
    assert manifest.settings == {
        "depth_range": 0.5,
        "rgb_range": 10,
        "invalid": 0.03,
        "farthest": 65535,
        "rules": 1,
    }


def test_a_frame_with_few_holes_is_kept(root, tmp_path):
    depth = HOLES.copy()
    depth[3, 5] = 1.0  # 5 of 192 are 2.6 %
    write_frame(root, "ai_001_001", 1, depth=depth)
    assert prepare(root, tmp_path / "out").counts == {"train": 2, "val": 1}


def test_the_readers_of_both_layouts_agree(root, tmp_path):
    from stepsight import data

    prepare(root, tmp_path / "out")
    ours = data.open("hypersim", str(tmp_path / "out"), split="train")
    raw = data.open("hypersim_raw", str(root), split="train")
    assert len(ours) == len(raw) == 2
    for one, other in zip(ours.samples(range(2)), raw.samples(range(2))):
        assert torch.equal(one.image, other.image)
        assert one.depth is not None and other.depth is not None
        assert (one.depth - other.depth).abs().max() <= 1.001e-3
        assert (one.depth <= other.depth + 1e-6).all()  # cut off, not rounded


def test_a_run_that_stopped_at_a_damaged_file_continues(root, tmp_path):
    reference = prepare(root, tmp_path / "reference")
    victim = root / "ai_002_001/images/scene_cam_00_final_hdf5/frame.0000.color.hdf5"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:500])
    with pytest.raises(DataFormatError, match=victim.name):
        prepare(root, tmp_path / "out")
    partial = prepare(root, tmp_path / "out", strict=False)
    assert list(partial.damaged) == ["ai_002_001/cam_00_fr0000"]
    assert partial.counts == {"train": 2, "val": 0}
    victim.write_bytes(whole)
    assert prepare(root, tmp_path / "out") == reference


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": np.full((HEIGHT, WIDTH), np.nan, np.float16)}, "100.0% of the pixels"),
        ({"depth": np.ones((HEIGHT, WIDTH - 1), np.float16)}, "depth_meters.hdf5"),
        ({"colour": np.ones((HEIGHT, WIDTH), np.float16)}, "color.hdf5"),
        ({"ids": np.zeros((HEIGHT, WIDTH), np.int16)}, "render_entity_id.hdf5"),
    ],
)
def test_frames_of_another_form_are_named(root, tmp_path, change, reason):
    write_frame(root, "ai_001_001", 1, **change)
    manifest = prepare(root, tmp_path / "out", strict=False)
    told = {**manifest.left_out, **manifest.damaged}
    assert reason in told["ai_001_001/cam_00_fr0001"]


def test_a_missing_file_of_a_scene_at_hand_is_named(root, tmp_path):
    (root / "ai_001_001/images/scene_cam_00_final_hdf5/frame.0001.color.hdf5").unlink()
    with pytest.raises(DataFormatError, match=r"frame\.0001\.color\.hdf5: missing"):
        prepare(root, tmp_path / "out")


def test_scenes_may_be_deleted_once_they_are_prepared(root, tmp_path):
    write_frame(root, "ai_001_001", 1, depth=FLAT)
    reference = prepare(root, tmp_path / "reference")
    later = root / "ai_002_001"
    later.rename(tmp_path / "not yet downloaded")
    assert prepare(root, tmp_path / "out").counts == {"train": 1}
    (tmp_path / "not yet downloaded").rename(later)
    shutil.rmtree(root / "ai_001_001")
    assert prepare(root, tmp_path / "out") == reference


def test_without_the_official_split_or_scenes_nothing_is_prepared(root, tmp_path):
    (root / TABLE).write_text("a,b\n")
    with pytest.raises(DataFormatError, match=TABLE):
        prepare(root, tmp_path / "out")
    (root / TABLE).write_text(COLUMNS)
    with pytest.raises(UserError, match="nothing to prepare"):
        prepare(root, tmp_path / "out")
    (root / TABLE).unlink()
    with pytest.raises(UserError, match="ml-hypersim"):
        prepare(root, tmp_path / "out")
