"""DDAD, written here by dgp's layout: a car of one laser and two cameras."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stepsight.data.readers.config import DdadSettings
from stepsight.data.readers.depth.ddad import Ddad
from stepsight.errors import DataFormatError, UserError

HEIGHT, WIDTH, FOCAL = 4, 6, 3.0
WORLD = Rotation.from_euler("xyz", [20, -35, 80], degrees=True)  # of the camera in the world
AT = np.array([4.0, -2.0, 1.5])
LASER = Rotation.from_euler("xyz", [-10, 5, 15], degrees=True)
LASER_AT = np.array([0.5, 3.0, -1.0])
SEEN = {(1, 2): 7.5, (3, 5): 40.0, (0, 0): 2.0}  # row, column: metres


def pose(rotation: Rotation, at: np.ndarray) -> dict:
    x, y, z, w = rotation.as_quat()
    return {
        "rotation": {"qw": w, "qx": x, "qy": y, "qz": z},
        "translation": dict(zip("xyz", at.tolist())),
    }


def points() -> np.ndarray:
    """Of the laser: what the camera sees, one behind another, one behind the camera."""
    places = [((v, u), z) for (v, u), z in SEEN.items()] + [((1, 2), 9.0), ((2, 2), -5.0)]
    camera = np.array(
        [
            [(u + 0.5 - WIDTH / 2) / FOCAL * z, (v + 0.5 - HEIGHT / 2) / FOCAL * z, z]
            for (v, u), z in places
        ]
    )
    world = WORLD.apply(camera) + AT
    seen = LASER.inv().apply(world - LASER_AT)
    return np.column_stack([seen, np.zeros(len(seen))]).astype(np.float32)


@pytest.fixture
def root(tmp_path, write_png):
    folder = tmp_path / "ddad_train_val" / "000150"
    data = []
    for name in ("CAMERA_01", "CAMERA_05"):
        write_png(folder / f"rgb/{name}/15.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
        image = {"filename": f"rgb/{name}/15.png", "pose": pose(WORLD, AT)}
        data.append({"key": name, "id": {"name": name}, "datum": {"image": image}})
    (folder / "point_cloud/LIDAR").mkdir(parents=True)
    np.savez_compressed(folder / "point_cloud/LIDAR/15.npz", data=points())
    cloud = {"filename": "point_cloud/LIDAR/15.npz", "pose": pose(LASER, LASER_AT)}
    data.append({"key": "laser", "id": {"name": "LIDAR"}, "datum": {"point_cloud": cloud}})
    keys = [datum["key"] for datum in data]
    scene = {"data": data, "samples": [{"datum_keys": keys, "calibration_key": "abc"}]}
    (folder / "scene_1.json").write_text(json.dumps(scene))
    lens = {"fx": FOCAL, "fy": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    lenses = {"names": ["CAMERA_01", "CAMERA_05", "LIDAR"], "intrinsics": [lens, lens, {}]}
    (folder / "calibration").mkdir()
    (folder / "calibration/abc.json").write_text(json.dumps(lenses))
    splits = {"1": {"filenames": ["000150/scene_1.json"]}}
    (folder.parent / "ddad.json").write_text(json.dumps({"scene_splits": splits}))
    return folder.parent


def open_at(root, split="val", **options):
    return Ddad(DdadSettings(root=str(root), **options), split)


def test_points_are_laid_over_the_picture(root):
    (sample,) = open_at(root)
    expected = np.zeros((HEIGHT, WIDTH))
    for place, metres in SEEN.items():
        expected[place] = metres  # the point at 9 m is hidden by that at 7.5
    assert sample.key == "000150/rgb/CAMERA_01/15"
    assert sample.depth[0].numpy() == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(sample.depth_valid[0], expected > 0)


def test_cameras_and_splits(root):
    assert open_at(root, camera="05")[0].key == "000150/rgb/CAMERA_05/15"
    with pytest.raises(UserError, match="split 'train' .* is empty"):
        open_at(root, "train")
    with pytest.raises(DataFormatError, match="lacks CAMERA_06, its lens, or LIDAR"):
        open_at(root, camera="all")
    with pytest.raises(
        UserError, match=r"found 0 ddad.json under .*; did you mean .*ddad_train_val"
    ):
        open_at(root.parent)


def test_malformed(root):
    path = root / "000150/point_cloud/LIDAR/15.npz"
    np.savez(path, data=points()[:, :2])
    with pytest.raises(DataFormatError, match=r"15.npz: float32 of shape \(5, 2\) are no points"):
        open_at(root)[0]
    np.savez(path, points=points())
    with pytest.raises(DataFormatError, match="15.npz: .*data"):
        open_at(root)[0]
    (root / "000150/calibration/abc.json").write_text('{"names": ["CAMERA_01"], "intrinsics": []}')
    with pytest.raises(DataFormatError, match="abc.json: 1 names for 0 intrinsics"):
        open_at(root)
