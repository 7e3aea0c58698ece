"""Hypersim (Roberts et al. 2021) as published: HDF5 files, distances along the rays.

Below `<root>/ai_VVV_NNN/images/`, each HDF5 file with an array `dataset`:
`scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5`, float16 "h w", NaN where there is none;
`....render_entity_id.hdf5`, int "h w", -1 where nothing was hit; and the colours,
`scene_cam_XX_final_hdf5/frame.IIII.color.hdf5`, float16 "h w 3", linear and unbounded. Where those
were not downloaded, the published preview `scene_cam_XX_final_preview/frame.IIII.tonemap.jpg`
is read instead. `metadata_images_split_scene_v1.csv`, at the root or where the data set's
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
FILES = {  # folder and suffix
    "depth": "geometry_hdf5/depth_meters.hdf5",
    "entities": "geometry_hdf5/render_entity_id.hdf5",
    "colour": "final_hdf5/color.hdf5",
    "preview": "final_preview/tonemap.jpg",
}
FOCAL = 886.81 / 1024  # 1 / (2 tan 30 degrees), in image widths
GAMMA = 1 / 2.2
BRIGHT, BRIGHT_PERCENTILE = 0.8, 90  # tone mapping brings this percentile to this value
DARKEST = 1e-4  # of that percentile, below which a picture is black
TONE_MAPPED = 8  # copies of the colours that this takes
LARGEST = 65504.0  # of float16: colours beyond it are stored as infinite


class HypersimView(NamedTuple):
    """A frame of a camera in a scene: `ai_037_002`, `cam_00`, 0."""

    scene: str
    camera: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.scene}/{self.camera}_fr{self.number:04d}"

    def path(self, root: Path, kind: str) -> Path:
        """The file of a kind of `FILES`."""
        folder, _, suffix = FILES[kind].partition("/")
        images = root / self.scene / "images"
        return images / f"scene_{self.camera}_{folder}" / f"frame.{self.number:04d}.{suffix}"


class HypersimRaw(FileSource[HypersimView]):
    """Indoor renderings, tone-mapped, with planar depth in metres.

    Splits: train, val, test of the public frames if the table is there, and all.
    """

    offers = frozenset({"depth"})
    marker = "ai_*/images/scene_cam_*_geometry_hdf5/frame.[0-9][0-9][0-9][0-9].depth_meters.hdf5"
    published = {"train": 59543, "val": 7386, "test": 7690}

    def find(self, split: str) -> list[HypersimView]:
        views = sorted(map(view_of, self.root.glob(self.marker)))
        if (splits := read_splits(self.root)) is None:
            return self.pick(split, {"all": views})
        return self.pick(split, {s: [v for v in views if splits.get(v) == s] for s in SPLITS})

    def read(self, entry: HypersimView) -> Sample:
        image = read_colour(entry, self.root)
        sample = Sample(image=image, key=entry.key, source=self.name)
        if "depth" in self.quantities:
            sample.depth, sample.depth_valid = self._depth(entry, image)
        return sample

    def _depth(self, view: HypersimView, image: Tensor) -> tuple[Tensor, Tensor]:
        """Planar depth "1 h w" and where it is valid: known, and something was hit there, as far as
        the entities were downloaded."""
        path, entities = view.path(self.root, "depth"), view.path(self.root, "entities")
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


def read_colour(view: HypersimView, root: Path) -> Tensor:
    """The picture of a view, uint8 "3 h w": tone-mapped from its colours, or else its preview.

    Raises `UserError` if a file is missing, and `DataFormatError` for a damaged file, NaN among
    the colours, and ids of 0, which no object has.
    """
    path = picture_path(view, root)
    if path == view.path(root, "preview"):
        return read_image(path)
    colours = read_hdf5(path, "dataset", copies=TONE_MAPPED)
    if colours.ndim != 3 or colours.shape[2] != 3:
        raise DataFormatError(f"{path}: {_size(colours)} values are no picture in colour.")
    rgb = torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)
    if rgb.isnan().any():
        raise DataFormatError(f"{path}: holds NaN.")
    entities = view.path(root, "entities")
    ids = read_plane(entities, np.int64)
    check_shapes([path, entities], rgb, ids)
    if (ids == 0).any():
        raise DataFormatError(f"{entities}: holds the id 0, which no object has.")
    return tone_map(rgb, ids)


def picture_path(view: HypersimView, root: Path) -> Path:
    """The file that the picture of a view is read from: its preview only instead of its colours."""
    colour, preview = view.path(root, "colour"), view.path(root, "preview")
    return preview if preview.is_file() and not colour.is_file() else colour


def read_plane(path: Path, kind: type[np.generic]) -> Tensor:
    """The array "h w" of an HDF5 file as "1 h w" of that kind. Raises `DataFormatError`."""
    values = read_hdf5(path, "dataset", copies=4)  # ids become int64
    if values.ndim != 2 or not np.can_cast(values.dtype, kind, "same_kind"):
        actual = f"{_size(values)} values of {values.dtype}"
        raise DataFormatError(f"{path}: {actual} are no plane of {np.dtype(kind)}.")
    with np.errstate(over="ignore"):  # infinite then, and invalid
        return torch.from_numpy(values.astype(kind))[None]


def read_splits(root: Path) -> dict[HypersimView, str] | None:
    """The split of every public view, None without the table. Raises `DataFormatError` naming the
    line."""
    tables = [root / folder / TABLE for folder in TABLE_FOLDERS]
    path = next((path for path in tables if path.is_file()), None)
    if path is None:
        return None
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
                    splits[HypersimView(scene, camera, int(number))] = split
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFormatError(f"{path}: cannot be read as a table ({error}).") from error
    return splits


def view_of(path: Path) -> HypersimView:
    """The view that a file of depths shows."""
    camera = path.parent.name.removeprefix("scene_").removesuffix("_geometry_hdf5")
    return HypersimView(path.parents[2].name, camera, int(path.name.split(".")[1]))


def _size(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))
