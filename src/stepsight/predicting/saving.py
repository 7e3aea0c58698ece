"""The files that an answer is written to, and the manifest that says what they hold.

An answer to `<name>` in `<out>` goes to `<out>/<name>-<task>` and an ending of `FORMATS`, what a
benchmark's server takes to `<out>/<benchmark>/` (`submissions`). It lies
upright, as its picture is seen: an orientation that a camera noted beside the pixels is applied.
Arrays are always "c h w": depth "1 h w", flow "2 h w", class ids "1 h w", normals "3 h w", and the
uncertainty "1 h w" in a file of its own, `<name>-<task>-uncertainty`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stepsight.data.decoding.formats import PIEH
from stepsight.data.decoding.images import write_image, write_png16
from stepsight.errors import UserError, suggest
from stepsight.predicting.item import Item
from stepsight.predicting.points import intrinsics, write_ply
from stepsight.predicting.submissions import SUBMISSIONS
from stepsight.tasks.base import Task
from stepsight.types import Prediction

MOST = 65535  # that 16 bits hold
METRES = "metres"  # unit of depth that is not relative
FINE, KITTI = 1000.0, 256.0  # stored per metre: millimetres, and what reaches as far as 256 m


@dataclass(frozen=True)
class Finished:
    """The answer to one picture, as it is written: a prediction for a batch of one, on the CPU, its
    colours included."""

    task: Task
    prediction: Prediction
    seen: torch.Tensor  # uint8 "3 h w", the picture, upright
    item: Item
    # fov or given, of `points.intrinsics`; {}: as the file says
    camera: Mapping[str, Any] = field(default_factory=dict)


class Format(NamedTuple):
    """How a file holds an answer. write: may raise UserError for values that it cannot hold.
    refuses: why a task cannot be written so, "" where it can. spread: writes the uncertainty too.
    """

    ending: str
    write: Callable[[Path, Finished, np.ndarray], None]  # with the array "c h w" that is meant
    holds: str
    refuses: Callable[[Task], str] = lambda task: ""
    spread: bool = False


def _npy(path: Path, answer: Finished, values: np.ndarray) -> None:
    np.save(path, values, allow_pickle=False)


def _picture(path: Path, answer: Finished, values: np.ndarray) -> None:
    assert answer.prediction.picture is not None
    write_image(path, answer.prediction.picture[0])


def png16_scale(task: Task) -> float:
    """What a 16-bit PNG stores for 1: class ids as they are; of depth as many steps a metre as its
    range leaves room for, 1000 or 256 where either does."""
    if not task.files or not task.files.scaled:
        return 1.0
    far = float(getattr(task, "high", FINE))
    fitting = [scale for scale in (FINE, KITTI) if far * scale <= MOST]
    return fitting[0] if fitting else MOST // far or MOST / far


def _png16(path: Path, answer: Finished, values: np.ndarray) -> None:
    """0 where there is no number."""
    scale = png16_scale(answer.task)
    stored = np.rint(np.nan_to_num(values.astype(np.float64) * scale, posinf=MOST + 1))
    beyond = (stored > MOST).mean()
    if beyond:
        raise UserError(
            f"{answer.item.path}: {100 * beyond:.1f} % of {answer.task.name} is more than "
            f"{MOST / scale:g}, the most that png16 holds here. Save exr or npy."
        )
    write_png16(path, torch.from_numpy(stored.clip(0, MOST).astype(np.uint16)))


def _no_png16(task: Task) -> str:
    files = task.files
    fits = files and files.channels[0] == 1 and (files.ids or files.scaled)
    return "" if fits else "a 16-bit PNG holds depth or class ids"


def _exr(path: Path, answer: Finished, values: np.ndarray) -> None:
    """float32, zipped; channels Y, or R and G, or R, G and B, as viewers show them."""
    try:
        import OpenEXR
    except ImportError as error:
        raise UserError("EXR files need OpenEXR: `uv sync --extra data`.") from error
    names = "Y" if len(values) == 1 else "RGB"
    planes = {name: np.ascontiguousarray(v, np.float32) for name, v in zip(names, values)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, planes) as file:
        file.write(str(path))


def _no_exr(task: Task) -> str:
    return "its values are whole numbers; use npy or png16" if task.files and task.files.ids else ""


def _flo(path: Path, answer: Finished, values: np.ndarray) -> None:
    """Baker et al. 2011, `flowIO.h`: "PIEH", width, height, rows of (u, v), little-endian."""
    height, width = values.shape[1:]
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0), "<f4")
    path.write_bytes(PIEH + struct.pack("<ii", width, height) + pixels.tobytes())


def _no_flo(task: Task) -> str:
    return "" if task.in_pixels else ".flo holds flow"


def _ply(path: Path, answer: Finished, values: np.ndarray) -> None:
    camera = intrinsics(answer.item.path, values.shape[1:], **answer.camera)
    relative = answer.task.unit != METRES
    write_ply(path, torch.from_numpy(values), answer.seen, camera, relative=relative)


def _no_ply(task: Task) -> str:
    return "" if task.files and task.files.scaled else "points are made of depth"


FORMATS: dict[str, Format] = {
    "npy": Format(".npy", _npy, "numpy array", spread=True),
    "picture": Format(".png", _picture, "colours, to be looked at"),
    "png16": Format("-16bit.png", _png16, "16-bit grey PNG, 0: none", _no_png16),
    "exr": Format(".exr", _exr, "OpenEXR, float32", _no_exr, spread=True),
    "flo": Format(".flo", _flo, "Middlebury flow", _no_flo),
    "ply": Format(".ply", _ply, "points: x right, y down, z forward", _no_ply),
}
FILM = "mp4"  # of films alone, a file of all their frames
USUAL = {False: ("npy", "picture"), True: ("npy", FILM)}  # what is saved, of pictures and of films


def chosen(text: str | None, task: Task) -> tuple[str, ...]:
    """The formats that `--save` names, each once; () where it is not given. Raises UserError for
    one that there is not, or that cannot hold the task."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
    known = {name: form.refuses for name, form in (FORMATS | SUBMISSIONS).items()}
    known[FILM] = lambda task: ""
    for name in names:
        if name not in known:
            raise UserError(f"--save {name}: no such format.{suggest(name, known)}")
        if why := known[name](task):
            raise UserError(f"--save {name}: not for {task.name}: {why}.")
    return names


def file_of(item: Item, task: str, name: str) -> str:
    """The file of a format, below the folder of the answers: of a film that of all its frames.
    Raises UserError where a benchmark wants no answer to this picture."""
    if name in SUBMISSIONS:
        return f"{name}/{SUBMISSIONS[name].file(item)}"
    return f"{item.name}-{task}" + (f".{FILM}" if name == FILM else FORMATS[name].ending)


def parts(answer: Finished, formats: Sequence[str]) -> dict[str, Callable[[Path], None]]:
    """All files of an answer to a picture, below the folder of the answers, and how each is
    written. Raises UserError as `file_of` does."""
    prediction, made = answer.prediction, dict[str, Callable[[Path], None]]()
    values, spread = prediction.values[0].numpy(), prediction.uncertainty
    for name in formats:
        file = file_of(answer.item, answer.task.name, name)
        if name in SUBMISSIONS:
            made[file] = partial(_submitted, SUBMISSIONS[name].write, values)
            continue
        form = FORMATS[name]
        made[file] = partial(_written, form, answer, values)
        if form.spread and spread is not None:
            file = f"{file.removesuffix(form.ending)}-uncertainty{form.ending}"
            made[file] = partial(_written, form, answer, spread[0].numpy())
    return made


def _written(form: Format, answer: Finished, values: np.ndarray, path: Path) -> None:
    form.write(path, answer, values)


def _submitted(write: Callable[[Path, np.ndarray], None], values: np.ndarray, path: Path) -> None:
    write(path, values)


def described(task: Task, formats: Sequence[str]) -> Mapping[str, Any]:
    """What the manifest says of the files of a task."""
    held: dict[str, dict[str, Any]] = {
        name: {"ending": f"-{task.name}{FORMATS[name].ending}", "holds": FORMATS[name].holds}
        for name in formats
        if name in FORMATS
    }
    if "png16" in held:
        held["png16"]["scale"] = png16_scale(task)  # stored values per unit
    return {"unit": task.unit, "formats": held}
