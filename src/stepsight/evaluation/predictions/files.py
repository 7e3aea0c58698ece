"""Predictions on disk: which file belongs to a sample, and what it holds.

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

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding import formats
from stepsight.data.decoding.images import read_depth_png, read_ids, read_labels
from stepsight.data.decoding.masks import read_mask
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.tasks.base import Files
from stepsight.tasks.config import scored_tasks
from stepsight.tasks.table import task_for

SUFFIXES = (".npy", ".png", ".flo", ".pfm")


def find_files(
    folder: Path, keys: Sequence[str], pattern: str | None = None, further: Iterable[str] = ()
) -> dict[str, Path]:
    """The file of each key that has one.

    Without a `pattern` the file is the key with one of `SUFFIXES` or of the `further` suffixes of a
    task, Marigold's name for it (`marigold_name`), or either below fewer of its folders, down to
    the last name alone. A pattern is a path below `folder` in which {key} and {name} stand for the
    key and its last part.
    Raises UserError if there is no such folder, or two keys lead to the same file.
    """
    if not folder.is_dir():
        raise UserError(f"--predictions {folder}: no such folder.")
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*"))}
    suffixes = (*SUFFIXES, *further)
    files: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for key in keys:
        path = next(
            (there[name] for name in _candidates(key, pattern, suffixes) if name in there), None
        )
        if path is None:
            continue
        if path in owners:
            raise UserError(
                f"{path} fits both {owners[path]} and {key}. Keep the folders of the data set in "
                "the names of the predictions, or say where they are with --pattern."
            )
        files[key], owners[path] = path, key
    return files


def marigold_name(name: str) -> str:
    """What Marigold's evaluation calls the prediction of the image `name` (without suffix).

    rgb_cam_00_fr0000 -> pred_cam_00_fr0000, rgb_0001 -> pred_0001, any other -> pred_other.
    """
    return f"pred_{name.removeprefix('rgb_')}"


def _candidates(key: str, pattern: str | None, suffixes: Sequence[str]) -> Iterator[str]:
    parts = PurePosixPath(key).parts
    if pattern:
        yield pattern.replace("{key}", key).replace("{name}", parts[-1])
        return
    for first in range(len(parts)):
        *folders, last = parts[first:]
        for name in (last, marigold_name(last)):
            for suffix in suffixes:
                yield "/".join([*folders, name + suffix])


def read_prediction(path: Path, task: str, scale: float = 1000.0) -> Tensor:
    """What a file predicts, "e c h w" (e = 1 unless it holds members): float32, or int64 ids.

    scale: units per metre of an integer depth file. Raises DataFormatError naming the file if it is
    damaged, of a kind that the task has no use for, or leaves a pixel without a prediction.
    """
    files = files_of(task)
    x = _array(path, task, files) if path.suffix == ".npy" else _picture(path, task, files)[None]
    if files.ids:
        return _ids(x, path, files)
    x = x.float() / scale if files.scaled and not x.is_floating_point() else x.float()
    _refuse_gaps(torch.isfinite(x), path, "are NaN or infinite")
    return x


def files_of(task: str) -> Files:
    """How files hold predictions of a task. Raises UserError where none are read."""
    files = task_for(task).files if task in scored_tasks() else None
    if files is None:
        known = [name for name in scored_tasks() if task_for(name).files]
        raise UserError(f"--task {task}: no predictions of it are read.{suggest(task, known)}")
    return files


def _picture(path: Path, task: str, files: Files) -> Tensor:
    """ "c h w" of a file other than .npy."""
    container = files.containers.get(path.suffix)
    if container is None:
        raise DataFormatError(f"{path}: no prediction of {task} is read from {path.suffix} files.")
    if container == "pfm":
        return _pfm(path, task, files)
    return (CONTAINERS[container] if isinstance(container, str) else container)(path)


def _kitti_flow(path: Path) -> Tensor:
    flow, known = formats.read_kitti_flow(path)
    _refuse_gaps(known, path, "are marked as unknown")
    return flow


def _flo(path: Path) -> Tensor:
    flow = formats.read_flo(path)
    _refuse_gaps(formats.known_flow(flow), path, "are marked as unknown")
    return flow


CONTAINERS: dict[str, Callable[[Path], Tensor]] = {
    "grey16": read_depth_png,
    "mask": read_mask,
    "labels": read_labels,
    "ids": read_ids,
    "kitti_flow": _kitti_flow,
    "flo": _flo,
}


def _pfm(path: Path, task: str, files: Files) -> Tensor:
    """A .pfm is grey or of three channels, of which the first are meant."""
    x, channels = formats.read_pfm(path), files.channels[0]
    wanted = 1 if channels == 1 else 3
    if len(x) != wanted:
        raise DataFormatError(f"{path}: {task} needs a .pfm of {wanted} channels, not {len(x)}.")
    return x[:channels]


def _array(path: Path, task: str, files: Files) -> Tensor:
    """ "e c h w" of an array with its channels first, last, or left out where there is one."""
    array, fits = formats.read_npy(path), files.channels
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


def _ids(x: Tensor, path: Path, files: Files) -> Tensor:
    """Whole numbers as int64; where a number holds class and instance, "e 2 h w" of the two."""
    if x.is_floating_point() and not (x == x.round()).all():
        raise DataFormatError(f"{path}: class ids are whole numbers; this holds fractions or NaN.")
    x = x.long()
    if files.stride and x.shape[1] == 1:
        return torch.cat([x // files.stride, x % files.stride], dim=1)
    return x


def _refuse_gaps(known: Tensor, path: Path, what: str) -> None:
    if not known.all():
        count = int((~known).sum())
        raise DataFormatError(f"{path}: {count} values {what}. Every pixel needs a prediction.")
