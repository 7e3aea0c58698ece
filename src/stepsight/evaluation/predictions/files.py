"""Predictions on disk: which file is the one of a sample, and what it holds.

`read_prediction` knows the containers that programs of the field write:

    depth     .npy, .pfm (grey), 16-bit .png; whole numbers are divided by the scale
    flow      .npy, .flo, .pfm (the first two of its three channels), KITTI's 16-bit RGB .png
    amodal    .npy (mask or probability), 8-bit .png (white: object)
    semantic  .npy (class ids), 8-bit .png (grey or palette indices)
    panoptic  .npy ("2 h w": class, instance; or ids), RGB .png of ids; id = 1000 class + instance
    normals   .npy (unit vectors)

An array may have its channels first or last, and a leading axis of members: "e c h w".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.formats import (
    known_flow,
    read_flo,
    read_kitti_flow,
    read_npy,
    read_pfm,
)
from stepsight.data.decoding.images import read_depth_png, read_ids, read_labels, read_mask
from stepsight.errors import DataFormatError, UserError

SUFFIXES = (".npy", ".png", ".flo", ".pfm")
CHANNELS = {"depth": 1, "flow": 2, "amodal": 1, "semantic": 1, "panoptic": 2, "normals": 3}
WHOLE = {"semantic", "panoptic"}  # ids, not quantities
STRIDE = 1000  # of a class in a panoptic id


def find_files(folder: Path, keys: Sequence[str], pattern: str | None = None) -> dict[str, Path]:
    """The file of each key that has one.

    Without a `pattern` a key's file is its own path with one of `SUFFIXES`, Marigold's name for it
    (`marigold_name`), or either below fewer of its folders, down to the last name alone. A pattern
    is a path below `folder` in which {key} and {name} stand for the key and its last part.
    Raises UserError if there is no such folder, or two keys lead to one file.
    """
    if not folder.is_dir():
        raise UserError(f"--predictions {folder}: no such folder.")
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*"))}
    found: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for key in keys:
        path = next((there[name] for name in _candidates(key, pattern) if name in there), None)
        if path is None:
            continue
        if path in owners:
            raise UserError(
                f"{path} fits both {owners[path]} and {key}. Keep the folders of the data set in "
                "the names of the predictions, or say where they are with --pattern."
            )
        found[key], owners[path] = path, key
    return found


def marigold_name(name: str) -> str:
    """What Marigold's evaluation calls the prediction of the image `name` (without suffix).

    rgb_cam_00_fr0000 -> pred_cam_00_fr0000, rgb_0001 -> pred_0001, any other -> pred_other.
    """
    return f"pred_{name.removeprefix('rgb_')}"


def _candidates(key: str, pattern: str | None) -> Iterator[str]:
    parts = PurePosixPath(key).parts
    if pattern:
        yield pattern.replace("{key}", key).replace("{name}", parts[-1])
        return
    for first in range(len(parts)):
        *folders, last = parts[first:]
        for name in (last, marigold_name(last)):
            for suffix in SUFFIXES:
                yield "/".join([*folders, name + suffix])


def read_prediction(path: Path, task: str, scale: float = 1000.0) -> Tensor:
    """What a file predicts, "e c h w" (e = 1 unless it holds members): float32, or int64 ids.

    scale: units of an integer depth file a metre. Raises DataFormatError naming the file if it is
    damaged, of a kind that the task has no use for, or leaves a pixel without a prediction.
    """
    x = _array(path, task) if path.suffix == ".npy" else _picture(path, task)[None]
    if task in WHOLE:
        return _ids(x, path, apart=task == "panoptic" and x.shape[1] == 1)
    x = x.float() if task != "depth" or x.is_floating_point() else x.float() / scale
    _refuse_gaps(torch.isfinite(x), path, "are NaN or infinite")
    return x


def _picture(path: Path, task: str) -> Tensor:
    """ "c h w" of a file other than .npy."""
    match path.suffix, task:
        case ".png", "depth":
            return read_depth_png(path)
        case ".png", "amodal":
            return read_mask(path)
        case ".png", "semantic":
            return read_labels(path)
        case ".png", "panoptic":
            return read_ids(path)
        case ".png", "flow":
            flow, known = read_kitti_flow(path)
            _refuse_gaps(known, path, "are marked as unknown")
            return flow
        case ".flo", "flow":
            flow = read_flo(path)
            _refuse_gaps(known_flow(flow), path, "are marked as unknown")
            return flow
        case ".pfm", ("depth" | "flow"):
            return _pfm(path, task)
    raise DataFormatError(f"{path}: no prediction of {task} is read from {path.suffix} files.")


def _pfm(path: Path, task: str) -> Tensor:
    x, wanted = read_pfm(path), {"depth": 1, "flow": 3}[task]
    if len(x) != wanted:
        raise DataFormatError(f"{path}: {task} needs a .pfm of {wanted} channels, not {len(x)}.")
    return x[: CHANNELS[task]]


def _array(path: Path, task: str) -> Tensor:
    """ "e c h w" of an array with its channels first, last, or left out where there is one."""
    array = read_npy(path)
    fits = {1, 2} if task == "panoptic" else {CHANNELS[task]}
    x = array[None] if array.ndim == 2 else array
    if x.ndim in (3, 4) and x.shape[-3] not in fits and x.shape[-1] in fits:
        x = np.moveaxis(x, -1, -3)
    if x.ndim not in (3, 4) or x.shape[-3] not in fits or not x.size:
        wanted = " or ".join(map(str, sorted(fits)))
        shape = " x ".join(map(str, array.shape))
        raise DataFormatError(
            f"{path}: an array {shape} is no {task}, which has {wanted} channels."
        )
    x = torch.from_numpy(np.ascontiguousarray(x))
    return x if x.ndim == 4 else x[None]


def _ids(x: Tensor, path: Path, apart: bool) -> Tensor:
    """Whole numbers as int64; with `apart` panoptic ids to "e 2 h w"."""
    if x.is_floating_point() and not (x == x.round()).all():
        raise DataFormatError(f"{path}: class ids are whole numbers; this holds fractions or NaN.")
    x = x.long()
    return torch.cat([x // STRIDE, x % STRIDE], dim=1) if apart else x


def _refuse_gaps(known: Tensor, path: Path, what: str) -> None:
    if not known.all():
        count = int((~known).sum())
        raise DataFormatError(f"{path}: {count} values {what}. Every pixel needs a prediction.")
