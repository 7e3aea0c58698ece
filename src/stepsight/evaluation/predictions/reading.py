"""What a file of predictions holds, in every container that programs of the field write:

    depth     .npy, .npz, .h5, .mat, .tif, .exr, .pfm, .dpt, .pgm, 16-bit .png; whole numbers are
              divided by the scale
    flow      the same arrays, .flo, .flo5 (Spring), .pfm, KITTI's 16-bit RGB .png
    normals   the same arrays, .pfm
    amodal    arrays (mask or probability); pictures of two values, or grey probabilities
    semantic  arrays, 8- or 16-bit pictures: class ids, those of a benchmark's files by their codes
    panoptic  .npy ("2 h w": class, instance; or ids), RGB .png of ids: 1000 class + instance, or
              segments of a JSON file beside them, as COCO's servers take them

An array may have its channels first or last, and a .npy a leading axis of members: "e c h w".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding import formats, truth
from stepsight.data.decoding.images import read_gray, read_ids
from stepsight.data.decoding.labels import CITYSCAPES_IDS, stored_labels
from stepsight.data.decoding.masks import read_mask
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.tasks.base import Files
from stepsight.tasks.config import scored_tasks
from stepsight.tasks.table import task_for
from stepsight.types import IGNORE

FROM_ONE, CITYSCAPES, CLASSES = "1..", "cityscapes", "classes"
CODES = (CLASSES, FROM_ONE, CITYSCAPES)  # what files of class ids may hold
NO_CLASS = -1  # for what the codes give no class

Segments = Mapping[int, tuple[int, int]]  # id in a file: class and instance


def read_prediction(
    path: Path,
    task: str,
    scale: float = 1000.0,
    codes: str = CLASSES,
    segments: Segments | None = None,
) -> Tensor:
    """What a file predicts, "e c h w" (e = 1 unless it holds members): float32, or int64 ids.

    scale: units per metre of an integer depth file. codes: what ids stand for. segments: of
    panoptic ids. Raises DataFormatError naming the file if it is damaged, of a kind that the task
    has no use for, or leaves a pixel without a prediction.
    """
    files, suffix = files_of(task), path.suffix.lower()
    if suffix == ".npy":
        x = _array(path, task, files)
    else:
        reader = readers_of(task).get(suffix)
        if reader is None:
            raise DataFormatError(f"{path}: no prediction of {task} is read from {suffix} files.")
        x = reader(path)[None]
        if x.shape[1] not in files.channels:
            wanted = " or ".join(map(str, sorted(files.channels)))
            raise DataFormatError(f"{path}: {x.shape[1]} channels, where {task} has {wanted}.")
    if files.ids:
        return _ids(x, path, files, codes, segments)
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


def readers_of(task: str) -> Mapping[str, Callable[[Path], Tensor]]:
    """By suffix, what reads a file as "c h w"."""
    own = files_of(task).containers
    named = {s: CONTAINERS[how] if isinstance(how, str) else how for s, how in own.items()}
    return named | dict(KINDS.get(task, {}))


def _kitti_flow(path: Path) -> Tensor:
    flow, known = formats.read_kitti_flow(path)
    _refuse_gaps(known, path, "are marked as unknown")
    return flow


def _flow(path: Path) -> Tensor:
    flow = truth.FLOW[path.suffix.lower()](path)
    flow = flow[:2] if len(flow) == 3 else flow  # the third of a .pfm is left out
    if len(flow) == 2:
        _refuse_gaps(formats.known_flow(flow), path, "are marked as unknown")
    return flow


def _probability(path: Path) -> Tensor:
    """A mask, or grey values as probabilities."""
    try:
        return read_mask(path).float()
    except DataFormatError:
        if path.suffix.lower() != ".png":
            raise
        values = read_gray(path)
        return values.float() / torch.iinfo(values.dtype).max


def _labels(path: Path) -> Tensor:
    return stored_labels(path)[None]


def _planes(path: Path) -> Tensor:
    """ "c h w" of an array other than .npy."""
    values = truth.read_array(path, "data")
    return torch.from_numpy(np.ascontiguousarray(values[None] if values.ndim == 2 else values))


PICTURES = (".png", ".bmp", ".gif")
ARRAYS = tuple(suffix for suffix in truth.ARRAYS if suffix not in (".npy", ".exr"))
CONTAINERS: dict[str, Callable[[Path], Tensor]] = {
    "grey16": truth.DEPTH[".png"],
    "mask": _probability,
    "labels": _labels,
    "ids": read_ids,
    "kitti_flow": _kitti_flow,
    "flo": _flow,
    "pfm": formats.read_pfm,
}
KINDS: dict[str, Mapping[str, Callable[[Path], Tensor]]] = {
    "depth": {suffix: read for suffix, read in truth.DEPTH.items() if suffix != ".npy"},
    "flow": dict.fromkeys((suffix for suffix in truth.FLOW if suffix != ".npy"), _flow),
    "normals": {suffix: read for suffix, read in truth.NORMALS.items() if suffix != ".npy"},
    "amodal": dict.fromkeys(PICTURES, _probability) | dict.fromkeys(ARRAYS, _planes),
    "semantic": dict.fromkeys((*PICTURES, *ARRAYS), _labels),
    "panoptic": dict.fromkeys(ARRAYS, _planes),
}


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


def _ids(x: Tensor, path: Path, files: Files, codes: str, segments: Segments | None) -> Tensor:
    """Whole numbers as int64; where a number holds class and instance, "e 2 h w" of the two."""
    if x.is_floating_point() and not (x == x.round()).all():
        raise DataFormatError(f"{path}: class ids are whole numbers; this holds fractions or NaN.")
    x = x.long()
    if not files.stride:
        return decoded(x, codes)
    if x.shape[1] > 1:
        return x
    if segments is None:
        return torch.cat([x // files.stride, x % files.stride], dim=1)
    return _listed(x, segments, path)


def decoded(ids: Tensor, codes: str) -> Tensor:
    """Classes from 0 of the ids in files; `NO_CLASS`, which is always wrong, of what is none."""
    if codes == FROM_ONE:
        return ids - 1
    if codes == CITYSCAPES:
        table = torch.full((IGNORE + 1,), NO_CLASS)
        table[list(CITYSCAPES_IDS.values())] = torch.arange(len(CITYSCAPES_IDS))
        return table[ids.clamp(0, IGNORE)]
    return ids


def _listed(ids: Tensor, segments: Segments, path: Path) -> Tensor:
    """ "e 2 h w" of class and instance; void where a file has 0."""
    values, places = ids[:, 0].unique(return_inverse=True)
    table = {0: (IGNORE, 0)} | dict(segments)
    if unlisted := [value for value in values.tolist() if value not in table]:
        raise DataFormatError(f"{path}: holds the segment {unlisted[0]}, which its JSON lacks.")
    pairs = torch.tensor([table[value] for value in values.tolist()])
    return pairs[places].movedim(-1, 1)


def _refuse_gaps(known: Tensor, path: Path, what: str) -> None:
    if not known.all():
        count = int((~known).sum())
        raise DataFormatError(f"{path}: {count} values {what}. Every pixel needs a prediction.")
