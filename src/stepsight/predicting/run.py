"""The loop over a collection: read, answer in batches, write, note, go on.

A picture that cannot be read or answered is met by the policy of `data.bad`; each answer stands
for itself, so that what is skipped spoils no other. What is done already is not done again
(`journal`), and a signal ends the loop after the batch at hand.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepsight import signals
from stepsight.data.bad import BadItems
from stepsight.data.decoding.images import read_image, write_image
from stepsight.data.decoding.masks import read_mask
from stepsight.data.plausible.judging import FIRST
from stepsight.errors import UserError
from stepsight.evaluation.predictions.dump import write_facts
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.item import Item
from stepsight.predicting.journal import CannotWrite, Done, placed
from stepsight.predicting.plausibility import Answered, implausible
from stepsight.predicting.points import intrinsics
from stepsight.predicting.saving import (
    FILM,
    USUAL,
    Finished,
    chosen,
    described,
    file_of,
    parts,
)
from stepsight.predicting.submissions import SUBMISSIONS
from stepsight.predicting.wanted import Limits, Wanted, asked_of
from stepsight.report.console import Console
from stepsight.tasks.base import Task
from stepsight.types import Prediction

PIXELS = 1 << 24  # of the pictures of a batch together, at their own sizes
FEW = 10  # items that each get a line of their own; of more there is a bar
THREADS = 8  # the most that read and write files
NOTHING = torch.empty(3, 0, 0, dtype=torch.uint8)


class Totals(NamedTuple):
    """How many items were answered now, and before; skipped: by path, why."""

    answered: int
    before: int
    skipped: dict[str, str]


class Read(NamedTuple):
    """An item and its picture, uint8 "3 h w"."""

    item: Item
    picture: Tensor


def predict_all(pipeline: DensePipeline, wanted: Wanted, bad: BadItems, console: Console) -> Totals:
    """Answer all items that are not answered yet, and write what was asked for.

    Raises UserError for a task that lacks an input, a format that cannot hold it, a folder with
    answers of another kind, and, unless the policy is to skip it, the first item that cannot be
    answered; Preempted where a signal asked to end before all were.
    """
    task = pipeline.task(wanted.task)
    formats = chosen(wanted.save, task)
    _check(task, wanted, formats)
    asked = asked_of(pipeline, wanted)
    kinds = sorted({item.film for item in wanted.items})
    saved = formats or [name for film in kinds for name in USUAL[film]]
    facts = {**asked, **described(task, saved)}
    facts["pictures"] = os.path.commonpath([item.path.absolute().parent for item in wanted.items])
    if True in kinds:
        facts["film"] = asdict(wanted.film)

    def begin(others: int) -> None:
        write_facts(wanted.out, task.name, facts)
        if others:
            console.note(f"{others} answers by another checkpoint or setting are replaced")

    with (
        Done(wanted.out, task.name, asked, wanted.items, begin) as done,
        ThreadPoolExecutor(min(wanted.batch, THREADS)) as pool,
    ):
        return _Loop(pipeline, wanted, task, formats, done, bad, console, pool).run()


def _check(task: Task, wanted: Wanted, formats: Sequence[str]) -> None:
    """Raise UserError for what no item could be answered with."""
    needs = {"second": "a second image (--second FILE, or a folder of frames)",
             "modal": "the visible mask (--mask FILE)"}  # fmt: skip
    for name, what in needs.items():
        files = (item.second if name == "second" else item.mask for item in wanted.items)
        if name in task.required_inputs and not any(
            file or item.film for file, item in zip(files, wanted.items)
        ):
            raise UserError(f"task {task.name} needs {what}.")
    if wanted.limits is not None and task.limits(torch.zeros(1, task.channels, 1, 1)) is None:
        raise UserError(f"--range: a colour of {task.name} means the same in all pictures already.")
    if wanted.limits == "common" and formats and not {"npy", "picture"} <= {*formats}:
        raise UserError("--range common paints the arrays when all are there: save npy,picture.")
    if "ply" in formats and any(value is not None for value in wanted.camera.values()):
        intrinsics("", (1, 1), **wanted.camera)
    for name in {*formats} & SUBMISSIONS.keys():
        _refuse_flattened(name, wanted.items)
    if FILM in formats and not any(item.film for item in wanted.items):
        raise UserError(
            f"--save {FILM}: there are pictures alone. Folders of frames are films with --as-film."
        )


def _refuse_flattened(name: str, items: Sequence[Item]) -> None:
    """Raise UserError where a benchmark has one name for the answers to two pictures."""
    owners = defaultdict[str, list[Item]](list)
    for item in items:
        with suppress(UserError):  # which is met when its turn comes
            owners[SUBMISSIONS[name].file(item)].append(item)
    if shared := next((some for some in owners.values() if len(some) > 1), None):
        paths = " and ".join(str(item.path) for item in shared)
        raise UserError(f"--save {name}: the benchmark has one name for {paths}.")


def _read(item: Item) -> Tensor:
    return NOTHING if item.film else read_image(item.path)


@dataclass
class _Loop:
    pipeline: DensePipeline
    wanted: Wanted
    task: Task
    formats: Sequence[str]  # () where the usual ones are meant
    done: Done
    bad: BadItems
    console: Console
    pool: ThreadPoolExecutor  # reads and writes the files of a batch beside one another
    skipped: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    first: list[Answered] = field(default_factory=list)  # that are looked at

    def run(self) -> Totals:
        items = self.wanted.items
        todo = [item for item in items if not self._is_done(item)]
        before = len(items) - len(todo)
        with self.console.counted("predict", len(items), FEW) as advance:
            advance(before)
            met = 0
            for group in self._groups(todo):
                self._film(group[0].item) if group[0].item.film else self._answer(group)
                advance(self.answered + len(self.skipped) - met)
                met = self.answered + len(self.skipped)
                if met < len(todo) and (name := signals.requested()):
                    raise signals.Preempted(
                        f"{name}: {before + self.answered} of {len(items)} pictures are predicted, "
                        f"in {self.wanted.out}."
                    )
        for remark in implausible(self.task, self.first):
            self.console.warn(str(remark))
        if self.wanted.limits == "common":
            self._paint()
        for name in self.formats:
            if (made := SUBMISSIONS.get(name)) and made.finish:
                made.finish(self.wanted.out / name)
        return Totals(self.answered, before, self.skipped)

    def _formats(self, item: Item) -> list[str]:
        return [name for name in self.formats or USUAL[item.film] if item.film or name != FILM]

    def _is_done(self, item: Item) -> bool:
        names = [name for name in self._formats(item) if name == FILM or not item.film]
        try:
            files = [file_of(item, self.task.name, name) for name in names]
        except UserError:  # which is met when its turn comes
            return False
        return self.done.has(item, files, self.wanted.drawn(item))

    def _groups(self, todo: Iterable[Item]) -> Iterator[list[Read]]:
        """Pictures that are answered together; a film by itself. What cannot be read is met."""
        group, pixels = list[Read](), 0
        for item, read in self._reading(todo):
            try:
                one = Read(item, read())
            except UserError as error:
                if group and not self.bad.skips:
                    yield group
                self._met(item, error)
                continue
            alone, size = item.film or bool(self.wanted.tile), one.picture[0].numel()
            if group and (alone or len(group) == self.wanted.batch or pixels + size > PIXELS):
                yield group
                group, pixels = [], 0
            group.append(one)
            pixels = PIXELS if alone else pixels + size
        if group:
            yield group

    def _reading(self, todo: Iterable[Item]) -> Iterator[tuple[Item, Callable[[], Tensor]]]:
        """Each item with what waits for its picture: a batch is read while that before it is
        answered."""
        todo, before = iter(todo), list[tuple[Item, Callable[[], Tensor]]]()
        while some := [*islice(todo, self.wanted.batch)]:
            reading = [(item, self.pool.submit(_read, item).result) for item in some]
            yield from before
            before = reading
        yield from before

    def _met(self, item: Item, error: UserError) -> None:
        self.bad.met("pictures", str(item.path), error, of=len(self.wanted.items))
        self.skipped[str(item.path)] = str(error)

    def _answer(self, group: list[Read]) -> None:
        """Answer and write. Where one of several pictures cannot be answered, each goes alone."""
        try:
            predictions = self._predictions(group)
        except UserError as error:
            if len(group) == 1:
                return self._met(group[0].item, error)
            for one in group:
                self._answer([one])
            return None
        self.done.begin()
        predictions = [prediction.to("cpu") for prediction in predictions]
        writing = [self.pool.submit(self._write, *pair) for pair in zip(group, predictions)]
        for one, prediction, written in zip(group, predictions, writing):
            try:
                files = written.result()
            except CannotWrite:
                raise
            except UserError as error:
                self._met(one.item, error)
                continue
            self._add(one.item, files, self.task.limits(prediction.values))
            if len(self.first) < FIRST:
                self.first.append(Answered(one.item, one.picture, prediction.values[0]))
            if not prediction.values.isfinite().all():
                text = f"warning: {one.item.path}: the answer holds NaN or infinity"
                print(text, file=sys.stderr)

    def _predictions(self, group: list[Read]) -> list[Prediction]:
        pictures, how = [one.picture for one in group], dict(self.wanted.how)
        if "second" in self.task.required_inputs:
            how["second"] = [one.item.second for one in group]
        if "modal" in self.task.required_inputs:
            files = (one.item.mask for one in group)
            how["mask"] = [file and read_mask(file, self.wanted.inside) for file in files]
        if self.wanted.tile is None:
            return self.pipeline(pictures, self.task.name, **how)
        from stepsight.predicting.tiles import predict_tiled

        how = {name: value[0] if isinstance(value, list) else value for name, value in how.items()}
        return [predict_tiled(self.pipeline, pictures[0], self.task.name, self.wanted.tile, **how)]

    def _write(self, one: Read, prediction: Prediction) -> list[str]:
        """Write an answer; its files."""
        if isinstance(self.wanted.limits, tuple):
            prediction.picture = self.task.coloured(prediction.values, self.wanted.limits)
        answer = Finished(self.task, prediction, one.picture, one.item, self.wanted.camera)
        files = parts(answer, self._formats(one.item))
        for file, write in files.items():
            with placed(self.wanted.out / file) as path:
                write(path)
        return [*files]

    def _film(self, item: Item) -> None:
        from stepsight.predicting.filming import answer_film

        try:
            self.done.begin()
            files = answer_film(self.pipeline, self.wanted, item, self._formats(item))
        except CannotWrite:
            raise
        except UserError as error:
            return self._met(item, error)
        return self._add(item, files, None)

    def _add(self, item: Item, files: Sequence[str], limits: Limits | None) -> None:
        self.done.add(item, files, limits, self.wanted.drawn(item))
        self.answered += 1
        if len(self.wanted.items) <= FEW:
            shown = [str(self.wanted.out / file) for file in files[:FEW]]
            more = ["..."] if len(files) > FEW else []
            print(f"{item.path} -> {', '.join(shown + more)}")

    def _paint(self) -> None:
        """The pictures of all answers over one range, from their arrays."""
        items = [item for item in self.wanted.items if not item.film and self._is_done(item)]
        ranges = self.done.limits(items)
        if not ranges or "picture" not in (self.formats or USUAL[False]):
            return
        limits = min(low for low, _ in ranges), max(high for _, high in ranges)
        self.console.note(f"colours of all pictures go from {limits[0]:.4g} to {limits[1]:.4g}")
        for item in items:
            array, shown = (file_of(item, self.task.name, name) for name in ("npy", "picture"))
            values = torch.from_numpy(np.load(self.wanted.out / array))
            with placed(self.wanted.out / shown) as path:
                write_image(path, self.task.coloured(values[None], limits)[0])
