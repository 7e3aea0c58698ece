"""DDAD (Guizilini et al. 2020): driving, laser depth up to 250 m, the unpacked `ddad_train_val`.

`<root>/ddad.json` lists the scenes of each split (`scene_splits`: 0 is train, 1 val), files such as
`000000/scene_<hash>.json`. A scene holds `samples` (moments), each naming by key the `data` of its
sensors: `rgb/CAMERA_01/<time>.png` and `point_cloud/LIDAR/<time>.npz` (array `data`, "n 4": x, y, z
in metres and intensity), each with its pose in the world, and a `calibration/<key>.json` with the
lens of every camera. The depth of a picture is made by laying the laser points over it, as TRI's
dgp does (`get_depth_from_point_cloud`, `generate_depth_map`): X_c = P_camera^-1 P_lidar X, pixel
(fx x/z + cx, fy y/z + cy) cut off to whole numbers, z > 0; where several points meet, the nearest
counts here (there the last, whichever that is). Names of the JSON follow dgp's messages; those that
its readers do not spell out are recalled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.annotations import field, read_json
from stepsight.data.decoding.formats import read_npz
from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource, check_any
from stepsight.data.readers.config import DdadSettings
from stepsight.errors import DataFormatError
from stepsight.types import Sample

INDEX, LIDAR = "ddad.json", "LIDAR"
SPLITS = {"train": "0", "val": "1"}
CAMERAS = ("01", "05", "06", "07", "08", "09")


class LaserFrame(NamedTuple):
    key: str
    image: Path
    points: Path
    camera_pose: np.ndarray  # "4 4", of the camera in the world
    lidar_pose: np.ndarray
    lens: np.ndarray  # fx, fy, cx, cy


class Ddad(FileSource[LaserFrame]):
    """Pictures at 1216 x 1936 with sparse depth. Splits: train, val, all."""

    settings: DdadSettings
    offers = frozenset({"depth"})
    marker = INDEX

    def find(self, split: str) -> list[LaserFrame]:
        cameras = CAMERAS if self.settings.camera == "all" else (self.settings.camera,)
        self.published = {"train": 12650 * len(cameras), "val": 3950 * len(cameras)}
        path = self.root / INDEX
        listed = field(read_json(path), "scene_splits", dict, path)
        parts = {}
        for name in SPLITS if split == "all" else [split]:
            files = field(
                listed.get(SPLITS.get(name, "")) or {"filenames": []}, "filenames", list, path
            )
            parts[name] = [f for file in files for f in self._scene(self.root / str(file), cameras)]
        return self.pick(split, {name: parts.get(name, []) for name in SPLITS})

    def needed(self, entry: LaserFrame) -> list[Path]:
        return [entry.image, entry.points] if "depth" in self.quantities else [entry.image]

    def read(self, entry: LaserFrame) -> Sample:
        sample = Sample(read_image(entry.image, upright=False), key=entry.key, source=self.name)
        if "depth" in self.quantities:
            height, width = sample.image.shape[1:]
            depth = laid_over(read_points(entry.points), entry, height, width)
            check_any(depth > 0, entry.points, "no point that its camera sees")
            sample.depth, sample.depth_valid = depth, depth > 0
        return sample

    def _scene(self, path: Path, cameras: tuple[str, ...]) -> list[LaserFrame]:
        scene = read_json(path)
        data = {field(d, "key", str, path): d for d in field(scene, "data", list, path)}
        frames = []
        known: dict[str, dict[str, np.ndarray]] = {}
        for sample in field(scene, "samples", list, path):
            keys = field(sample, "datum_keys", list, path)
            sensors = {_sensor(data[key], path).upper(): data[key] for key in keys if key in data}
            calibration = field(sample, "calibration_key", str, path)
            if calibration not in known:
                file = path.parent / "calibration" / f"{calibration}.json"
                known[calibration] = read_lenses(file)
            lenses = known[calibration]
            for camera in (f"CAMERA_{number}" for number in cameras):
                if camera not in sensors or LIDAR not in sensors or camera not in lenses:
                    raise DataFormatError(f"{path}: a sample lacks {camera}, its lens, or {LIDAR}.")
                image, image_pose = _file(sensors[camera], "image", path)
                points, points_pose = _file(sensors[LIDAR], "point_cloud", path)
                key = image.relative_to(self.root).with_suffix("").as_posix()
                frames.append(
                    LaserFrame(key, image, points, image_pose, points_pose, lenses[camera])
                )
        return frames


def laid_over(points: np.ndarray, frame: LaserFrame, height: int, width: int) -> Tensor:
    """Laser points "n 3" in metres as depth float32 "1 h w" of the frame's picture, 0 where none
    falls."""
    to_camera = np.linalg.inv(frame.camera_pose) @ frame.lidar_pose
    x, y, z = to_camera[:3, :3] @ points.T + to_camera[:3, 3:]
    fx, fy, cx, cy = frame.lens
    ahead = z > 0
    x, y, z = x[ahead], y[ahead], z[ahead]
    u, v = fx * x / z + cx, fy * y / z + cy
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v, z = u[inside].astype(np.int64), v[inside].astype(np.int64), z[inside]
    depth = np.full((height, width), np.inf, np.float32)
    with np.errstate(over="ignore"):
        np.minimum.at(depth, (v, u), z.astype(np.float32))
    return torch.from_numpy(np.where(np.isinf(depth), np.float32(0), depth))[None]


def read_points(path: Path) -> np.ndarray:
    """The points "n 3" of a file. Raises `DataFormatError` for anything else."""
    values = read_npz(path, "data", ())
    if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind != "f":
        raise DataFormatError(f"{path}: {values.dtype} of shape {values.shape} are no points.")
    points = values[:, :3].astype(np.float64)
    return points[np.isfinite(points).all(axis=1)]


def read_lenses(path: Path) -> dict[str, np.ndarray]:
    """fx, fy, cx, cy of each camera. Raises `DataFormatError`."""
    calibration = read_json(path)
    names = field(calibration, "names", list, path)
    lenses = field(calibration, "intrinsics", list, path)
    if len(names) != len(lenses):
        raise DataFormatError(f"{path}: {len(names)} names for {len(lenses)} intrinsics.")
    return {
        str(name).upper(): np.array(
            [_number(lens, part, path) for part in ("fx", "fy", "cx", "cy")]
        )
        for name, lens in zip(names, lenses)
    }


def read_pose(pose: Any, path: Path) -> np.ndarray:
    """A unit quaternion and a translation as a matrix "4 4". Values of 0 may be left out."""
    w, x, y, z = (_number(field(pose, "rotation", dict, path), f"q{a}", path) for a in "wxyz")
    length = w * w + x * x + y * y + z * z
    if not length > 0:
        raise DataFormatError(f"{path}: a pose without a rotation.")
    s, matrix = 2 / length, np.eye(4)
    matrix[:3, :3] = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    shift = field(pose, "translation", dict, path)
    matrix[:3, 3] = [_number(shift, axis, path) for axis in "xyz"]
    return matrix


def _sensor(datum: Any, path: Path) -> str:
    return field(field(datum, "id", dict, path), "name", str, path)


def _file(datum: Any, kind: str, path: Path) -> tuple[Path, np.ndarray]:
    """The file of a datum, and its pose in the world."""
    about = field(field(datum, "datum", dict, path), kind, dict, path)
    pose = read_pose(field(about, "pose", dict, path), path)
    return path.parent / field(about, "filename", str, path), pose


def _number(record: Any, name: str, path: Path) -> float:
    value = record.get(name, 0) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataFormatError(f"{path}: '{name}' is {value!r}, no number.")
    return float(value)
