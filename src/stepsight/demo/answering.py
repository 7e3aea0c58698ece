"""From a question to pictures, numbers and files: what the page shows, without the page.

An answer grows: first the prediction, with its spread and its files, then what other numbers of
calls answer, one after the other.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from stepsight.colours import colour_spread, spread_legend
from stepsight.data.decoding.images import read_image, write_image
from stepsight.demo.asking import DemoQuestion, formats_of, steps_of
from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.measures import duration, measure, number
from stepsight.pipeline.budget import check_budget
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.filming import answer_film
from stepsight.predicting.item import Item
from stepsight.predicting.saving import FILM, Finished, parts
from stepsight.predicting.wanted import Wanted
from stepsight.scaling.sampling.wording import count
from stepsight.tasks.base import Task
from stepsight.types import Prediction

KEPT = 50  # answers whose files are kept; older ones go


@dataclass(frozen=True)
class DemoPicture:
    """A picture or film of the page: its file, what it shows, and what its colours stand for."""

    file: Path
    caption: str
    alt: str
    legend: Legend | None = None

    @property
    def film(self) -> bool:
        return self.file.suffix == f".{FILM}"


@dataclass(frozen=True)
class DemoAnswer:
    """An answer as far as it is known. notes: sentences on what is missing. strip: by calls."""

    sentence: str
    pictures: Sequence[DemoPicture]
    files: Sequence[Path] = ()
    notes: Sequence[str] = ()
    strip: Sequence[DemoPicture] = ()


@dataclass
class Answerer:
    """Answers questions with one pipeline, one at a time. folder: for the files of answers.
    classes: names of the label values, where they are known."""

    pipeline: DensePipeline
    folder: Path
    classes: Sequence[str] = ()
    _warm: set[str] = field(default_factory=set)
    _kept: deque[Path] = field(default_factory=deque)

    def answers(self, question: DemoQuestion) -> Iterator[DemoAnswer]:
        """The answer as it grows. Raises UserError for a question that cannot be answered."""
        task = self.pipeline.task(question.task)
        question.check(task)
        pipeline, how, notes = self._sampling(question)
        place = self._place()
        if question.film:
            yield self._film(question, pipeline, how, place)
            return
        assert question.picture
        seen = read_image(question.picture)
        how |= question.beside(task)
        steps = steps_of(pipeline, how["nfe"])
        if task.name not in self._warm:  # what is made once is not what an answer takes
            _timed(pipeline, seen, task, how | {"nfe": steps[0]})
            self._warm.add(task.name)
        answer, seconds = _timed(pipeline, seen, task, how)
        files, lacking = _written(question, task, answer, seen, place)
        shown = self._shown(task, answer, seen, files, place)
        sentence = _cost(pipeline, task, answer, how, seconds)
        first = DemoAnswer(sentence, shown, files, [*notes, *lacking])
        yield first
        strip = list[DemoPicture]()
        for calls in steps if question.strip else ():
            other, took = answer, seconds
            if calls != how["nfe"]:
                other, took = _timed(pipeline, seen, task, how | {"nfe": calls})
            strip.append(_tile(task, other, answer, place, calls, took))
            yield replace(first, strip=[*strip])

    def _sampling(self, question: DemoQuestion) -> tuple[DensePipeline, dict[str, Any], list[str]]:
        """The pipeline, sampling as asked, with calls and members; and the plan in words."""
        check_budget(question.budget or None, None, size=question.size or None)
        if question.budget:
            plan = self.pipeline.plan(question.task, question.budget)
            planned = self.pipeline.planned(question.task, plan)
            promise = f"{measure(plan.metric).label} {number(plan.expected)} over the run's sweep"
            words = f"{plan.budget} buys {_spent(plan.nfe, plan.members)}: {promise}."
            return planned, {"nfe": plan.nfe, "members": plan.members}, [words]
        usual = self.pipeline.setting(question.task, question.nfe, question.members)
        return self.pipeline, {"nfe": usual.nfe, "members": usual.members}, []

    def _place(self) -> Path:
        """A folder for the next answer; the oldest of many goes."""
        if len(self._kept) == KEPT:
            shutil.rmtree(self._kept.popleft(), ignore_errors=True)
        self._kept.append(Path(tempfile.mkdtemp(dir=self.folder)))
        return self._kept[-1]

    def _shown(
        self, task: Task, answer: Prediction, seen: Tensor, files: list[Path], place: Path
    ) -> list[DemoPicture]:
        """The picture, what is predicted, and the spread of several members."""
        write_image(place / "seen.png", seen)
        legend = task.legend(answer.values)
        if legend:
            legend = replace(legend, invalid_means="")  # a prediction is everywhere
        if legend and self.classes and task.target_field == "labels":
            legend = _named(legend, answer.values, self.classes)
        named, alt = task.unit.startswith(task.name), f"{task.name} of the picture"
        caption = task.unit if named else f"{task.name}: {task.unit}"
        shown = [
            DemoPicture(place / "seen.png", "picture", "the picture that was dropped"),
            DemoPicture(files[0], caption, alt, legend),
        ]
        if answer.uncertainty is not None:
            write_image(place / "spread.png", colour_spread(answer.uncertainty)[0])
            legend = replace(spread_legend(answer.uncertainty), invalid_means="")
            alt = "where the members disagree"
            shown.append(DemoPicture(place / "spread.png", "spread of the members", alt, legend))
        return shown

    def _film(
        self, question: DemoQuestion, pipeline: DensePipeline, how: dict[str, Any], place: Path
    ) -> DemoAnswer:
        """Of a film the film in colours alone: arrays of its frames would fill the disk."""
        assert question.film
        task, item = question.task, Item(question.film, question.film.stem)
        how["size"] = question.size or None
        began = time.perf_counter()
        (file,) = answer_film(pipeline, Wanted(task, [item], place, how), item, [FILM])
        took = _seconds(time.perf_counter() - began)
        spent = _spent(how["nfe"], how["members"])
        film = DemoPicture(place / file, "all frames over one range of colours", f"{task}, a film")
        return DemoAnswer(f"{spent} a frame, the film in {took}.", [film], [film.file])


def _timed(
    pipeline: DensePipeline, seen: Tensor, task: Task, how: dict[str, Any]
) -> tuple[Prediction, float]:
    """An answer, on the CPU, and the seconds it took."""
    began = time.perf_counter()
    answer = pipeline(seen, task.name, **how).to("cpu")
    return answer, time.perf_counter() - began


def _cost(
    pipeline: DensePipeline, task: Task, answer: Prediction, how: dict[str, Any], seconds: float
) -> str:
    """What an answer took."""
    at = pipeline.at(how["size"]) if how["size"] else pipeline
    height, width = at.working_size(task.name, (answer.values.shape[-2], answer.values.shape[-1]))
    where = f"seen at {height} x {width} pixels, on {pipeline.device.type}"
    return f"{_spent(how['nfe'], how['members'])} in {_seconds(seconds)}, {where}."


def _seconds(seconds: float) -> str:
    return f"{number(seconds, 2)} s" if seconds < 60 else duration(seconds)


def _spent(nfe: int, members: int) -> str:
    return f"{count(nfe, 'call')} x {count(members, 'member')}"


def _written(
    question: DemoQuestion, task: Task, answer: Prediction, seen: Tensor, place: Path
) -> tuple[list[Path], list[str]]:
    """The files of an answer, and why some formats are not among them."""
    assert question.picture
    item = Item(question.picture, question.picture.stem)
    camera = {"fov": question.fov or None}
    finished, files, notes = Finished(task, answer, seen, item, camera), list[Path](), list[str]()
    for name in ("picture", *(name for name in question.formats if name in formats_of(task))):
        try:
            for file, write in parts(finished, [name]).items():
                write(place / file)
                files.append(place / file)
        except UserError as error:
            notes.append(f"No {name}: {question.worded(error)}")
    return files, notes


def _named(legend: Legend, values: Tensor, names: Sequence[str]) -> Legend:
    """A legend of the label values "1 1 h w" with the names of those that have one."""
    found = (int(label) for label in values.unique() if label < len(names))
    classes = [one._replace(name=names[label]) for label, one in zip(found, legend.classes)]
    return replace(legend, classes=tuple(classes))


def _tile(
    task: Task, other: Prediction, answer: Prediction, place: Path, calls: int, seconds: float
) -> DemoPicture:
    """What `calls` calls answer, in the colours of the whole answer."""
    limits, picture = task.limits(answer.values), other.picture
    picture = task.coloured(other.values, limits) if limits else picture
    assert picture is not None
    write_image(place / f"{calls}.png", picture[0])
    spent = count(calls, "call")
    above = ", as above" if other is answer else ""
    return DemoPicture(
        place / f"{calls}.png", f"{spent}, {_seconds(seconds)}{above}", f"{task.name} by {spent}"
    )
