"""TartanAir (Wang et al. 2020) and its second version: rendered flights with depth and flow.

`<root>/<world>/{Easy,Hard}/P000/image_left/000000_left.png`, `depth_left/000000_left_depth.npy`
(float32 metres), and from the left camera alone `flow/000000_000001_flow.npy` (float32 "h w 2",
pixels) with `flow/000000_000001_mask.npy` (uint8, 0 where the flow holds: 1 and 10 are occluded,
100 leaves the picture). TartanAir V2 has `<world>/Data_{easy,hard}/P000/image_lcam_front/
000000_lcam_front.png`, `depth_lcam_front/000000_lcam_front_depth.png` and
`flow_lcam_front/000000_000001_flow.png`: depth as the four bytes of a float32 in the blue, green,
red and alpha of a PNG, flow as 16-bit RGB with blue u, green v (KITTI's steps), red that mask
(castacks/tartanair_tools: data_type.md, README.md; castacks/tartanairpy; the name of V2's flow
files is recalled).

Poses are not read; they have NED axes (x forward, y right, z down). Depth is planar, along x of
those, which is the optical axis. The sky is a sphere at a large distance: from 1000 m on nothing
was hit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.formats import KITTI_STEPS, KITTI_ZERO, read_npy
from stepsight.data.decoding.images import decode, read_rgb16
from stepsight.data.files import check_any, check_shapes
from stepsight.data.readers.config import TartanAirSettings
from stepsight.data.readers.flow.pairs import Pair, PairSource, chosen
from stepsight.errors import DataFormatError
from stepsight.types import Sample

SKY = 1000.0  # metres
BYTES = (2, 1, 0, 3)  # of a little-endian float32: where in red, green, blue, alpha


class Version(NamedTuple):
    level: str  # what stands before a level of difficulty
    camera: str  # of the folders of a side
    flow: str  # folder of flow, of the left camera
    suffix: str  # of depth and flow


ONE = Version("", "{}", "flow", ".npy")
TWO = Version("Data_", "{[0]}cam_front", "flow_lcam_front", ".png")


def read_depth(path: Path) -> Tensor:
    """Depth float32 "1 h w" in metres of either version. Raises `DataFormatError`."""
    if path.suffix == ".npy":
        values = read_npy(path)
    else:
        image, bits = decode(path, 8)
        if image.mode != "RGBA" or bits != 8:
            raise DataFormatError(f"{path}: {bits}-bit {image.mode}, where RGBA holds depth.")
        values = np.ascontiguousarray(np.asarray(image)[..., BYTES]).view("<f4")[..., 0]
    if values.ndim != 2 or values.dtype.kind != "f":
        raise DataFormatError(f"{path}: {values.dtype} of shape {values.shape} is no depth.")
    if np.isnan(values).any():
        raise DataFormatError(f"{path}: holds NaN, where the sky is far away.")
    with np.errstate(over="ignore"):  # infinite then, and invalid
        return torch.from_numpy(values.astype(np.float32))[None]


def read_flow(path: Path) -> tuple[Tensor, Tensor]:
    """Flow "2 h w" in pixels of either version, and where it holds. Raises `DataFormatError`."""
    if path.suffix == ".npy":
        flow, mask = read_npy(path), read_npy(mask_of(path))
        if flow.ndim != 3 or flow.shape[2] != 2 or flow.shape[:2] != mask.shape:
            raise DataFormatError(f"{path}: shape {flow.shape} with a mask of {mask.shape}.")
        with np.errstate(over="ignore"):
            vectors = torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))
        holds = torch.from_numpy(mask == 0)[None]
    else:
        red, green, blue = read_rgb16(path).to(torch.float32)
        vectors = torch.stack([blue, green]).sub_(KITTI_ZERO).div_(KITTI_STEPS)
        holds = (red == 0)[None]
    valid = holds & vectors.isfinite().all(dim=0, keepdim=True)
    return vectors.masked_fill_(~valid, 0.0), valid


def mask_of(flow: Path) -> Path:
    """The mask beside a file of flow of the first version."""
    return flow.with_name(flow.name.replace("_flow", "_mask"))


class TartanAir(PairSource):
    """Depth in metres, flow in pixels; with flow the last frame of a flight is left out.

    Splits: easy, hard, all (the authors publish no other for training).
    """

    settings: TartanAirSettings
    offers = frozenset({"depth", "flow"})
    marker = "*/*/P*/image_*"
    splits = {"easy": "Easy", "hard": "Hard"}
    decode_flow = staticmethod(read_flow)

    def survey(self, root: Path, split: str) -> None:
        self.version = TWO if any(root.glob("*/Data_*")) else ONE
        sides = ("left", "right")
        self.camera = {side: self.version.camera.format(side) for side in sides}
        self.marker = f"*/{self.version.level}*/P*/image_*"

    def present(self) -> frozenset[str]:
        left = self.settings.camera == "left"
        folders = {"depth": "depth_*", "flow": self.version.flow if left else ""}
        flights = f"*/{self.version.level}*/P*/"
        found = (q for q, f in folders.items() if f and any(self.root.glob(flights + f)))
        return frozenset(found)

    def offered(self) -> frozenset[str]:
        """Only the left camera has flow."""
        return self.offers if self.settings.camera == "left" else frozenset({"depth"})

    def pairs(self, folder: str) -> list[Pair]:
        level = folder if self.version is ONE else self.version.level + folder.lower()
        flights = sorted(self.root.glob(f"*/{level}/P*"))
        return [
            pair
            for side in chosen(self.settings.camera, "left", "right")
            for flight in flights
            for pair in self._flight(flight, self.camera[side])
        ]

    def needed(self, entry: Pair) -> list[Path]:
        paths = super().needed(entry)
        if "depth" in self.quantities:
            paths.append(self._depth(entry))
        if entry.flow and self.version is ONE and "flow" in self.quantities:
            paths.append(mask_of(entry.flow))
        return paths

    def read(self, entry: Pair) -> Sample:
        sample = super().read(entry)
        if "depth" in self.quantities:
            path = self._depth(entry)
            depth = read_depth(path)
            check_shapes([entry.image, path], sample.image, depth)
            valid = (depth > 0) & (depth < SKY)
            check_any(valid, path, "no valid depth")
            sample.depth, sample.depth_valid = torch.where(valid, depth, 0.0), valid
        return sample

    def _flight(self, flight: Path, camera: str) -> list[Pair]:
        frames = sorted((flight / f"image_{camera}").glob(f"*_{camera}.png"))
        place = flight.relative_to(self.root).as_posix()
        keys = {frame: f"{place}/{frame.stem}" for frame in frames}
        if "flow" not in self.quantities:
            return [Pair(keys[frame], frame) for frame in frames]
        return [
            Pair(keys[first], first, _next(first, camera), self._flow(flight, first, camera))
            for first in frames[:-1]
        ]

    def _flow(self, flight: Path, first: Path, camera: str) -> Path:
        numbers = "_".join(p.name.split("_")[0] for p in (first, _next(first, camera)))
        return flight / self.version.flow / f"{numbers}_flow{self.version.suffix}"

    def _depth(self, entry: Pair) -> Path:
        folder = entry.image.parent.name.replace("image_", "depth_")
        name = f"{entry.image.stem}_depth{self.version.suffix}"
        return entry.image.parents[1] / folder / name


def _next(frame: Path, camera: str) -> Path:
    """The frame that follows. Raises `DataFormatError` where a frame has no number."""
    number = frame.name.removesuffix(f"_{camera}.png")
    if not number.isdecimal():
        raise DataFormatError(f"{frame}: its name does not begin with the number of a frame.")
    return frame.with_name(f"{int(number) + 1:0{len(number)}d}_{camera}.png")
