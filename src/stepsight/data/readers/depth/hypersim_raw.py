"""Hypersim (Roberts et al. 2021) as published: HDF5 files, distances along the rays.

Below `<root>/ai_VVV_NNN/images/`, each HDF5 file with one array `dataset`:
`scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5`, float16 "h w", NaN where there is none;
`....render_entity_id.hdf5`, int "h w", -1 where nothing was hit; and the colours,
`scene_cam_XX_final_hdf5/frame.IIII.color.hdf5`, float16 "h w 3", linear and unbounded. Where those
were not downloaded, the published preview `scene_cam_XX_final_preview/frame.IIII.tonemap.jpg`
stands in for them. `metadata_images_split_scene_v1.csv`, at the root or where the data set's
repository keeps it, says which frames are public and to which split each belongs.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

TABLE = "metadata_images_split_scene_v1.csv"
TABLE_FOLDERS = ("", "evermotion_dataset/analysis")
COLUMNS = (
    "scene_name",
    "camera_name",
    "frame_id",
    "included_in_public_release",
    "split_partition_name",
)
SPLITS = ("train", "val", "test")
FOCAL = 886.81 / 1024  # 1 / (2 tan 30 degrees), in image widths
GAMMA = 1 / 2.2
BRIGHT, BRIGHT_PERCENTILE = 0.8, 90  # tone mapping brings this percentile to this value
DARKEST = 1e-4  # of that percentile, below which a picture is black
LARGEST = 65504.0  # of float16: colours beyond it are stored as infinite


class View(NamedTuple):
    """One frame of one camera in one scene: `ai_037_002`, `cam_00`, 0."""

    scene: str
    camera: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.scene}/{self.camera}_fr{self.number:04d}"

    def path(self, root: Path, folder: str, suffix: str) -> Path:
        images = root / self.scene / "images"
        return images / f"scene_{self.camera}_{folder}" / f"frame.{self.number:04d}.{suffix}"

    def depth(self, root: Path) -> Path:
        return self.path(root, "geometry_hdf5", "depth_meters.hdf5")

    def entities(self, root: Path) -> Path:
        return self.path(root, "geometry_hdf5", "render_entity_id.hdf5")

    def colour(self, root: Path) -> Path:
        return self.path(root, "final_hdf5", "color.hdf5")

    def preview(self, root: Path) -> Path:
        return self.path(root, "final_preview", "tonemap.jpg")


class HypersimRaw(FileSource[View]):
    """Indoor renderings, tone-mapped, with planar depth in metres.

    Splits: train, val, test of the public frames if the table is there, and all.
    """

    offers = frozenset({"depth"})
    marker = "ai_*/images/scene_cam_*_geometry_hdf5/frame.[0-9][0-9][0-9][0-9].depth_meters.hdf5"
    published = {"train": 59543, "val": 7386, "test": 7690}

    def find(self, split: str) -> list[View]:
        views = sorted(map(view_of, self.root.glob(self.marker)))
        tables = [self.root / folder / TABLE for folder in TABLE_FOLDERS]
        table = next((path for path in tables if path.is_file()), None)
        if table is None:
            return self.pick(split, {"all": views})
        splits = read_splits(table)
        return self.pick(split, {s: [v for v in views if splits.get(v) == s] for s in SPLITS})

    def read(self, entry: View) -> Sample:
        image = read_colour(entry, self.root)
        sample = Sample(image=image, key=entry.key, source=self.name)
        if "depth" in self.quantities:
            sample.depth, sample.depth_valid = self._depth(entry, image)
        return sample

    def _depth(self, view: View, image: Tensor) -> tuple[Tensor, Tensor]:
        """Planar depth "1 h w" and where it is valid: known, and something was hit there, as far as
        the entities were downloaded."""
        path, entities = view.depth(self.root), view.entities(self.root)
        distance = read_plane(path, np.float32)
        check_shapes([picture_path(view, self.root), path], image, distance)
        valid = distance.isfinite() & (distance > 0)
        if entities.is_file():
            ids = read_plane(entities, np.int64)
            check_shapes([path, entities], distance, ids)
            valid &= ids != -1
        check_any(valid, path, "no valid depth")
        return torch.where(valid, ray_to_planar(distance), 0.0), valid


def ray_to_planar(distance: Tensor) -> Tensor:
    """Distance from the camera along the ray, "... h w", to depth along the optical axis.

    z = r f / sqrt(x^2 + y^2 + f^2), where x and y are a pixel's offsets from the centre of the
    picture and f = 886.81 px at a width of 1024 (60 degrees seen from left to right). Both in
    metres; NaN stays NaN. Exact but for scenes whose camera has a shifted lens (the data set's
    `metadata_camera_parameters.csv`).
    """
    height, width = distance.shape[-2:]
    focal = FOCAL * width
    x = torch.arange(width, dtype=distance.dtype, device=distance.device) - (width - 1) / 2
    y = torch.arange(height, dtype=distance.dtype, device=distance.device) - (height - 1) / 2
    return distance * focal / torch.sqrt(x**2 + y[:, None] ** 2 + focal**2)


def tone_map(rgb: Tensor, entity_ids: Tensor) -> Tensor:
    """Linear colours float32 "3 h w" to a picture uint8 "3 h w", as Hypersim's previews are made.

    out = clip(max(s rgb, 0)^(1 / 2.2), 0, 1), with s = 0.8^2.2 / p and p the 90th percentile of the
    brightness 0.3 R + 0.59 G + 0.11 B where something was hit (`entity_ids` "1 h w" not -1); s = 1
    where nothing was, and 0 where p < 1e-4 (`scene_generate_images_tonemap.py` of the data set's
    tools). Times 255 and truncated. No colour may be NaN.
    """
    rgb = rgb.clamp(-LARGEST, LARGEST)
    scale = _exposure(rgb[:, entity_ids[0] != -1])
    picture = ((rgb * scale).clamp(min=0) ** GAMMA).clamp(max=1)
    return picture.mul(255).to(torch.uint8).contiguous()


def _exposure(rgb: Tensor) -> float:
    """The factor s of `tone_map` for the colours "3 n" of what was hit."""
    if rgb.shape[1] == 0:
        return 1.0
    brightness = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]
    percentile = float(np.percentile(brightness.cpu().numpy(), BRIGHT_PERCENTILE))
    return 0.0 if percentile < DARKEST else math.pow(BRIGHT, 1 / GAMMA) / percentile


def read_colour(view: View, root: Path) -> Tensor:
    """The picture of a view, uint8 "3 h w": tone-mapped from its colours, or else its preview.

    Raises `UserError` if a file is missing, and `DataFormatError` for a damaged one, colours that
    are NaN, and ids of 0, which no object has.
    """
    path = picture_path(view, root)
    if path == view.preview(root):
        return read_image(path)
    colours = read_hdf5(path, "dataset")
    if colours.ndim != 3 or colours.shape[2] != 3:
        raise DataFormatError(f"{path}: {_size(colours)} values are no picture in colour.")
    rgb = torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)
    if rgb.isnan().any():
        raise DataFormatError(f"{path}: holds NaN.")
    ids = read_plane(view.entities(root), np.int64)
    check_shapes([path, view.entities(root)], rgb, ids)
    if (ids == 0).any():
        raise DataFormatError(f"{view.entities(root)}: holds the id 0, which no object has.")
    return tone_map(rgb, ids)


def picture_path(view: View, root: Path) -> Path:
    """The file that the picture of a view is read from: its preview only instead of its colours."""
    colour, preview = view.colour(root), view.preview(root)
    return preview if preview.is_file() and not colour.is_file() else colour


def read_plane(path: Path, kind: type[np.generic]) -> Tensor:
    """The array "h w" of an HDF5 file as "1 h w" of that kind. Raises `DataFormatError`."""
    values = read_hdf5(path, "dataset")
    if values.ndim != 2 or not np.can_cast(values.dtype, kind, "same_kind"):
        found = f"{_size(values)} values of {values.dtype}"
        raise DataFormatError(f"{path}: {found} are no plane of {np.dtype(kind)}.")
    with np.errstate(over="ignore"):  # infinite then, and invalid
        return torch.from_numpy(values.astype(kind))[None]


def read_splits(path: Path) -> dict[View, str]:
    """The split of every public view. Raises `DataFormatError` naming the line."""
    splits = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise DataFormatError(f"{path}: no columns {', '.join(sorted(missing))}.")
            for row in rows:
                scene, camera, number, public, split = (row[name] or "" for name in COLUMNS)
                if not number.isdecimal():
                    reason = f"{number!r} is no frame number"
                    raise DataFormatError(f"{path}, line {rows.line_num}: {reason}.")
                if public == "True":
                    splits[View(scene, camera, int(number))] = split
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFormatError(f"{path}: cannot be read as a table ({error}).") from error
    return splits


def view_of(path: Path) -> View:
    """The view that a file of depths shows."""
    camera = path.parent.name.removeprefix("scene_").removesuffix("_geometry_hdf5")
    return View(path.parents[2].name, camera, int(path.name.split(".")[1]))


def _size(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))
