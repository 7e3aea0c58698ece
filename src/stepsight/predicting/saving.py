"""The files that an answer is written to, and the manifest that says what they hold.

An answer to `<name>` in `<out>` goes to `<out>/<name>-<task>` and an ending of `FORMATS`. It lies
upright, as its picture is seen: an orientation that a camera noted beside the pixels is applied.
Arrays are always "c h w": depth "1 h w", flow "2 h w", class ids "1 h w", normals "3 h w", and the
uncertainty "1 h w" in a file of its own, `<name>-<task>-uncertainty`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stepsight.data.decoding.formats import PIEH
from stepsight.data.decoding.images import write_image, write_png16
from stepsight.errors import UserError, suggest
from stepsight.predicting.gathering import Item
from stepsight.tasks.base import Task
from stepsight.types import Prediction

MOST = 65535  # that 16 bits hold
FINE, KITTI = 1000.0, 256.0  # stored per metre: millimetres, and what reaches as far as 256 m


@dataclass(frozen=True)
class Finished:
    """The answer to one picture, as it is written: a prediction for a batch of one, on the CPU, its
    colours included."""

    task: Task
    prediction: Prediction
    seen: torch.Tensor  # uint8 "3 h w", the picture, upright
    path: Path  # of the picture
    fov: float | None = None  # horizontal field of view in degrees; None: as the file says


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
            f"{answer.path}: {100 * beyond:.1f} % of {answer.task.name} is more than "
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
    from stepsight.predicting.points import intrinsics, write_ply

    focal = intrinsics(answer.path, tuple(values.shape[1:]), answer.fov)
    write_ply(path, torch.from_numpy(values), answer.seen, focal)


def _no_ply(task: Task) -> str:
    return "" if task.files and task.files.scaled else "points are made of depth"


FORMATS: dict[str, Format] = {
    "npy": Format(".npy", _npy, "numpy array", spread=True),
    "picture": Format(".png", _picture, "colours, to be looked at"),
    "png16": Format("-16bit.png", _png16, "16-bit grey PNG, 0: none", _no_png16),
    "exr": Format(".exr", _exr, "OpenEXR, float32", _no_exr, spread=True),
    "flo": Format(".flo", _flo, "Middlebury flow", _no_flo),
    "ply": Format(".ply", _ply, "points in metres, x right, y down, z forward", _no_ply),
}
FILM = "mp4"  # of films alone, a file of all their frames
USUAL = {False: ("npy", "picture"), True: ("npy", FILM)}  # what is saved, of pictures and of films


def chosen(text: str | None, task: Task) -> tuple[str, ...]:
    """The formats that `--save` names, each once; () where it is not given. Raises UserError for
    one that there is not, or that cannot hold the task."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
    for name in names:
        if name not in (*FORMATS, FILM):
            raise UserError(f"--save {name}: no such format.{suggest(name, [*FORMATS, FILM])}")
        if name in FORMATS and (why := FORMATS[name].refuses(task)):
            raise UserError(f"--save {name}: not for {task.name}: {why}.")
    return names


def endings(task: str, formats: Sequence[str]) -> list[str]:
    """What the files of an answer that there always are end in, after its name."""
    return [f"-{task}{FORMATS[name].ending}" for name in formats]


def files_of(item: Item, task: str, formats: Sequence[str]) -> list[str]:
    """The same as paths below the folder of the answers; of a film, the one file of its frames, and
    the folder of those that each have some."""
    if not item.film:
        return [item.name + ending for ending in endings(task, formats)]
    return [f"{item.name}-{task}.{FILM}"] if FILM in formats else []


def parts(answer: Finished, formats: Sequence[str]) -> dict[str, Callable[[Path], None]]:
    """All files of an answer: what each ends in after its name, and how it is written."""
    prediction, task = answer.prediction, answer.task.name
    values, made = prediction.values[0].numpy(), dict[str, Callable[[Path], None]]()
    for name in formats:
        form = FORMATS[name]
        made[f"-{task}{form.ending}"] = _writing(form, answer, values)
        if form.spread and prediction.uncertainty is not None:
            spread = prediction.uncertainty[0].numpy()
            made[f"-{task}-uncertainty{form.ending}"] = _writing(form, answer, spread)
    return made


def _writing(form: Format, answer: Finished, values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: form.write(path, answer, values)


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
