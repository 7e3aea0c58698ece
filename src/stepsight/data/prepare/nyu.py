"""NYUv2's labelled set, `nyu_depth_v2_labeled.mat` and `splits.mat` -> PNG files with lists.

The layout is Marigold's: `<split>/<scene>/{rgb,depth,filled}_NNNN.png`, numbered from 1 as in the
.mat file, and `filename_list_<split>.txt`. `depth` is what the sensor measured, 0 in its holes;
`filled` has the holes painted in by the authors (Silberman et al. 2012).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.decoding.hdf5 import open_hdf5, shape_hdf5
from stepsight.data.decoding.images import write_image, write_png16
from stepsight.data.prepare.jobs import Job
from stepsight.data.prepare.manifest import Manifest
from stepsight.data.prepare.preparation import Listing, Preparation, Report
from stepsight.data.readers.config import NyuMatSettings
from stepsight.data.readers.depth.nyu_mat import DEPTHS, FRAMES, SPLITS, NyuMat, read_splits
from stepsight.data.readers.listed import to_millimetres
from stepsight.errors import DataFormatError, UserError

KINDS = ("rgb", "depth", "filled")
RULES = 1  # raise when the same files come to mean another folder: what was made lapses


def nyu(
    root: Path, out: Path, *, report: Report, workers: int = 1, strict: bool = True
) -> Manifest:
    """Extract every frame of the two splits. Raises `UserError`, `DataFormatError`."""
    preparation = Preparation("nyuv2", root, out, {"rules": RULES})
    for name in (FRAMES, SPLITS):
        if not (root / name).is_file():
            raise UserError(f"nyuv2: {root / name} not found; it comes with the labelled set.")
    scenes = read_scenes(root / FRAMES)
    listings = [
        Listing(
            split,
            f"filename_list_{split}.txt",
            [_job(root, f"{split}/{scenes[number - 1]}", number) for number in sorted(numbers)],
        )
        for split, numbers in read_splits(root / SPLITS, len(scenes)).items()
    ]
    return preparation.run(listings, extract, report=report, workers=workers, strict=strict)


def extract(job: Job, staged: list[Path]) -> str | None:
    """Write picture, measured depth and filled depth of a frame."""
    root, number = job.inputs[0].parent, int(job.name)
    source = NyuMat(NyuMatSettings(root=str(root)), "all", frozenset())
    image = source[number - 1].image
    write_image(staged[0], image)
    for array, path in zip((DEPTHS["raw"], DEPTHS["filled"]), staged[1:]):
        write_png16(path, to_millimetres(*source.depth(number, array, image)))
    return None


def read_scenes(path: Path) -> list[str]:
    """The scene of every frame, such as kitchen_0004: text as MATLAB stores it, by reference."""
    count = shape_hdf5(path, "images")[0]
    with open_hdf5(path) as file:
        references = np.asarray(file["scenes"]).ravel()
        scenes = [_text(file[reference]) for reference in references]
    if len(scenes) != count or not all(re.fullmatch(r"\w+", scene) for scene in scenes):
        raise DataFormatError(f"{path}: 'scenes' does not name the scenes of its {count} frames.")
    return scenes


def _job(root: Path, folder: str, number: int) -> Job:
    outputs = tuple(f"{folder}/{kind}_{number:04d}.png" for kind in KINDS)
    return Job(f"{number:04d}", (root / FRAMES,), outputs, " ".join(outputs))


def _text(codes: Any) -> str:
    return "".join(map(chr, np.asarray(codes).ravel()))
