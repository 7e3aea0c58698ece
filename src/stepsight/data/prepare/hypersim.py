"""Hypersim as published (HDF5, distance along the ray) -> Marigold's layout (PNG, planar depth).

Under the root: scene folders `ai_VVV_NNN` as `hypersim_raw` reads them, and
`metadata_images_split_scene_v1.csv`. Frames that are not public, and scenes that are not there, are
passed over; a scene that was prepared may be deleted from the root before the next is downloaded.
Written are `<split>/<scene>/rgb_cam_XX_frYYYY.png`, tone-mapped by the official rule,
`depth_plane_cam_XX_frYYYY.png`, and `filename_list_<split>.txt`.

The thresholds of the filter rule are those that circulate among users of the set. The rule behind
Marigold's own lists (53,885 / 7,370 / 7,682 frames) is not published, so counts may differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from stepsight.data.decoding.images import write_image, write_png16
from stepsight.data.files import check_shapes
from stepsight.data.prepare.jobs import Job
from stepsight.data.prepare.manifest import Manifest
from stepsight.data.prepare.preparation import Listing, Preparation, Report
from stepsight.data.readers.depth.hypersim_raw import (
    SPLITS,
    TABLE,
    HypersimView,
    ray_to_planar,
    read_colour,
    read_plane,
    read_splits,
    view_of,
)
from stepsight.data.readers.listed import LARGEST, to_millimetres
from stepsight.errors import UserError


@dataclass(frozen=True)
class Rule:
    """Which frames are worth having, judged by what is written."""

    depth_range: float = 0.5  # metres between the nearest and the farthest pixel, at least
    rgb_range: int = 10  # between the smallest and the largest value of 0 to 255, at least
    invalid: float = 0.03  # share of pixels without depth, at most

    def broken_by(self, image: Tensor, depth: Tensor) -> str | None:
        """What is wrong with image uint8 "3 h w" and depth uint16 millimetres "1 h w", if any."""
        millimetres = depth.int()
        there = millimetres[millimetres > 0]
        if (absent := 1 - there.numel() / depth.numel()) > self.invalid:
            return f"{absent:.1%} of the pixels have no depth"
        if (extent := int(there.max() - there.min()) / 1000) < self.depth_range:
            return f"depth spans {extent:.3f} m"
        if (extent := int(image.max()) - int(image.min())) < self.rgb_range:
            return f"colours span {extent} of 255"
        return None


RULE = Rule()
RULES = 1  # raise when the same files come to mean another folder: what was made lapses


def hypersim(
    root: Path, out: Path, *, report: Report, workers: int = 1, strict: bool = True
) -> Manifest:
    """Convert all public frames at hand. Raises `UserError`, `DataFormatError`."""
    settings = asdict(RULE) | {"farthest": LARGEST, "rules": RULES}
    preparation = Preparation("hypersim", root, out, settings)
    if (views := read_splits(root)) is None:
        raise UserError(
            f"hypersim: {root / TABLE} not found; put it there, from evermotion_dataset/analysis "
            "of the repository apple/ml-hypersim."
        )
    parts: dict[str, list[Job]] = {}
    for view in sorted(views):
        job = _job(root, views[view], view)
        if (root / view.scene).is_dir() or preparation.known(job):
            parts.setdefault(views[view], []).append(job)
    listings = [Listing(s, f"filename_list_{s}.txt", parts[s]) for s in SPLITS if s in parts]
    return preparation.run(listings, convert, report=report, workers=workers, strict=strict)


def convert(job: Job, staged: list[Path]) -> str | None:
    """Write picture and planar depth of a frame, unless the rule leaves it out."""
    colour, distances, entities = job.inputs
    view = view_of(distances)
    image = read_colour(view, distances.parents[3])
    distance, ids = read_plane(distances, np.float64), read_plane(entities, np.int64)
    check_shapes([colour, distances, entities], image, distance, ids)
    depth = to_millimetres(ray_to_planar(distance), ids != -1)
    if reason := RULE.broken_by(image, depth):
        return reason
    write_image(staged[0], image)
    write_png16(staged[1], depth)
    return None


def _job(root: Path, split: str, view: HypersimView) -> Job:
    frame = f"{view.camera}_fr{view.number:04d}.png"
    names = [f"{view.scene}/{kind}_{frame}" for kind in ("rgb", "depth_plane")]
    inputs = (view.path(root, "colour"), view.path(root, "depth"), view.path(root, "entities"))
    return Job(view.key, inputs, tuple(f"{split}/{name}" for name in names), " ".join(names))
