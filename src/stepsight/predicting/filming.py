"""A film's answers in files: a film in colours, and a folder of what each frame gives.

Frames are numbered from 0, `<name>/000000-<task>.npy`; of a film that is kept as a folder of
pictures they are called as these. All frames share one range of colours, which is known once all
are answered; until then everything lies in a folder of its own, so that a film that was stopped
leaves nothing half.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.images import read_image, write_image
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.film import FilmWriter, frame_rate, frames, predict_film
from stepsight.predicting.item import Item
from stepsight.predicting.journal import CannotWrite
from stepsight.predicting.saving import FILM, Finished, file_of, parts
from stepsight.predicting.wanted import Wanted
from stepsight.tasks.base import Task

PAINTED = ("picture", FILM)  # formats of colours


def answer_film(
    pipeline: DensePipeline, wanted: Wanted, item: Item, formats: Sequence[str]
) -> list[str]:
    """Answer a film and write it in `formats`; the files, below `wanted.out`. Raises UserError for
    a film that cannot be read, and a task that reads more than frames."""
    task = pipeline.task(wanted.task)
    if item.second or item.mask or set(task.required_inputs) - {"second"}:
        raise UserError(f"{item.path}: of films {task.name} reads the frames alone.")
    if wanted.tile:
        raise UserError(f"{item.path}: films are not answered in tiles. Give a --size.")
    target = wanted.out / item.name
    stage = target.with_name(f".partial-{target.name}-{task.name}")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        (stage / "values").mkdir(parents=True)
        ranges = [
            _save(stage, number, answer, formats)
            for number, answer in enumerate(_answers(pipeline, wanted, item))
        ]
        if not ranges:
            raise UserError(f"{item.path}: too few frames for {task.name}.")
        if {*formats} & {*PAINTED}:
            limits = wanted.limits if isinstance(wanted.limits, tuple) else _widest(ranges)
            _paint(stage, item, task, formats, limits)
        return _placed(stage, wanted.out, item, task.name, formats)
    except OSError as error:
        raise CannotWrite(f"{target}: cannot be written ({error}).") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _answers(pipeline: DensePipeline, wanted: Wanted, item: Item) -> Iterator[Finished]:
    """The answers to the frames, in order."""
    task, waiting = pipeline.task(wanted.task), deque[Tensor]()

    def passing() -> Iterator[Tensor]:
        for frame in _frames(item):
            waiting.append(frame)
            yield frame

    film = predict_film(pipeline, task.name, passing(), wanted.film, **wanted.how)
    for number, prediction in enumerate(film):
        frame = replace(item, name=_name(item, number))
        yield Finished(task, prediction.to("cpu"), waiting.popleft(), frame, wanted.camera)


def _frames(item: Item) -> Iterator[Tensor]:
    """Raises UserError for pictures of several sizes, which are no film."""
    if not item.frames:
        yield from frames(item.path)
    size = None
    for frame in item.frames:
        picture = read_image(frame.path)
        if picture.shape != (size := size or picture.shape):
            raise UserError(f"{frame.path}: of another size than the frames before it.")
        yield picture


def _name(item: Item, number: int) -> str:
    return item.frames[number].name if item.frames else f"{item.name}/{number:06d}"


def _save(
    stage: Path, number: int, answer: Finished, formats: Sequence[str]
) -> tuple[float, float] | None:
    """Write what is not painted, and keep what is; the range of the values."""
    plain = [name for name in formats if name not in PAINTED]
    for file, write in parts(answer, plain).items():
        write(stage / PurePosixPath(file).name)
    prediction, limits = answer.prediction, answer.task.limits(answer.prediction.values)
    if {*formats} & {*PAINTED}:
        kept = prediction.picture if limits is None else prediction.values
        assert kept is not None
        np.save(stage / "values" / f"{number:06d}.npy", kept[0].numpy())
    return limits


def _widest(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [limits for limits in ranges if limits]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _paint(
    stage: Path,
    item: Item,
    task: Task,
    formats: Sequence[str],
    limits: tuple[float, float] | None,
) -> None:
    """The film, and the pictures of its frames, from what was kept."""
    with ExitStack() as stack:
        film = None
        if FILM in formats:
            film = stack.enter_context(FilmWriter(stage / FILM, frame_rate(item.path)))
        for number, path in enumerate(sorted((stage / "values").iterdir())):
            kept = torch.from_numpy(np.load(path))
            picture = task.coloured(kept[None], limits)[0] if limits else kept
            if film:
                film.add(picture)
            if "picture" in formats:
                name = PurePosixPath(_name(item, number)).name
                write_image(stage / f"{name}-{task.name}.png", picture)


def _placed(stage: Path, out: Path, item: Item, task: str, formats: Sequence[str]) -> list[str]:
    """Move all files to where they belong."""
    files = [path.name for path in sorted(stage.iterdir()) if path.name not in ("values", FILM)]
    folder = PurePosixPath(_name(item, 0)).parent
    moves = {str(folder / name): stage / name for name in files}
    if FILM in formats:
        moves[file_of(item, task, FILM)] = stage / FILM
    for name, path in moves.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, out / name)
    return [*moves]
