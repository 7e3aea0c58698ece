"""Reading samples anew each time, in the training process or ahead of it in other processes.

What is read is fixed by the requests, which follow from the step number alone; who reads it, and
how far ahead, changes nothing. So any number of readers gives the same batches in the same order,
and a run that stopped anywhere begins at its next request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch.utils.data import DataLoader, Dataset

from stepsight.data.augment import augment
from stepsight.data.collate import collate
from stepsight.data.config import FileSettings
from stepsight.data.mixture import Draw
from stepsight.data.table import Source, read_sample
from stepsight.data.workers import as_is
from stepsight.errors import UserError
from stepsight.types import Batch

PATIENCE = 600.0  # seconds that a batch may take before its reader counts as hung
LOOK = 5.0  # seconds between looks whether all readers are alive
AHEAD = 2  # requests that a reader works ahead
ADVICE = "Lower training.workers if memory is short; 0 reads in the training process."


@dataclass(frozen=True)
class Request:
    """Some rows of batch number `step`."""

    step: int
    source: str
    size: tuple[int, int] | None  # working height and width; None: those of the source
    indices: tuple[int, ...]
    mirrored: tuple[bool, ...]
    numbers: tuple[int, ...]  # of the images in the run: they seed the augmentation

    @classmethod
    def of(cls, draw: Draw, step: int, rows: range) -> Self:
        return cls(
            step,
            draw.stream.source,
            draw.stream.size,
            tuple(draw.indices[row] for row in rows),
            tuple(draw.mirrored[row] for row in rows),
            tuple(step * len(draw.indices) + row for row in rows),
        )


@dataclass(frozen=True)
class Answer:
    """What a reader made of a request: a batch, or an error that the user can fix."""

    request: Request
    batch: Batch | None = None
    error: UserError | None = None


class Reader(Dataset[Answer]):
    """Answers requests: reads, augments and stacks. A pure function, in whatever process it is."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Mapping[str, FileSettings],
        seed: int,
        flip: bool,
    ) -> None:
        self.sources, self.settings = sources, settings
        self.seed, self.flip = seed, flip

    def __getitem__(self, request: Request) -> Answer:
        try:
            return Answer(request, self.read(request))
        except UserError as error:  # carried as a value: raised, it would arrive as a traceback
            return Answer(request, error=error)

    def read(self, request: Request) -> Batch:
        """The batch. Raises `UserError` naming the sample that cannot be read."""
        source, settings = self.sources[request.source], self.settings[request.source]
        size, samples = request.size or source.size, []
        for index, mirrored, number in zip(request.indices, request.mirrored, request.numbers):
            mirrored = mirrored and self.flip
            sample = read_sample(source, index)
            samples.append(augment(sample, settings, size, self.seed, number, mirrored))
        return collate(samples)


class Loader:
    """Answers of a `reader`, made by `workers` processes that work ahead; 0: made when asked for.

    following: the requests from a step on, in order; they must be those that will be asked for.
    """

    def __init__(
        self,
        reader: Reader,
        following: Callable[[int], Iterator[Request]],
        workers: int,
        patience: float = PATIENCE,
    ) -> None:
        self.reader, self.following = reader, following
        self.workers, self.patience = workers, patience
        self._answers: Iterator[Answer] | None = None
        self._expected: Iterator[Request] = iter(())

    def begin(self, step: int) -> None:
        """Let the readers start on the first request from `step` on, before it is asked for."""
        if self.workers:
            self._seek(next(self.following(step)))

    def take(self, request: Request) -> Batch:
        """The batch of a request: of the next, or of any other to begin anew.

        Raises `UserError` for a sample that cannot be read, and for a reader that died or hung.
        """
        answer = self._next(request) if self.workers else self.reader[request]
        assert answer.request == request
        if answer.error is not None:
            self.close()
            raise answer.error
        assert answer.batch is not None
        return answer.batch

    def close(self) -> None:
        """End the reader processes; the next request starts them again."""
        self._answers = None

    def _next(self, request: Request) -> Answer:
        if self._answers is None or next(self._expected) != request:
            self._seek(request)
            next(self._expected)
        assert self._answers is not None
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return next(self._answers)
            except (RuntimeError, EOFError, OSError) as error:  # torch's word, or a torn connection
                reason, *_ = str(error).splitlines() or [type(error).__name__]
                if "timed out" in reason and time.monotonic() < deadline:
                    continue  # all readers are alive: torch looks whenever it times out
                self.close()
                if reason.startswith("Caught"):  # a bug, with the traceback of the reader
                    raise
                raise UserError(
                    f"a reader process died or hung while batch {request.step} was awaited "
                    f"({request.source}, samples {list(request.indices)}; readers work up to "
                    f"{AHEAD * self.workers} batches ahead): {reason} {ADVICE}"
                ) from error

    def _seek(self, request: Request) -> None:
        """Begin anew, so that the next answer is to `request`."""
        self.close()
        self._expected = self._from(request)
        served = DataLoader(
            self.reader,
            batch_size=None,  # a request is a batch already
            sampler=self._from(request),  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=as_is,
            timeout=min(LOOK, self.patience),
            prefetch_factor=AHEAD,
            generator=torch.Generator(),  # or it would draw from the global generator
        )
        self._answers = iter(served)

    def _from(self, request: Request) -> Iterator[Request]:
        requests = self.following(request.step)
        for other in requests:
            assert other.step == request.step, "a request that does not follow from its step"
            if other == request:
                break
        yield request
        yield from requests


@contextmanager
def readers_watched() -> Iterator[None]:
    """Turn torch's report of a reader that died, which may interrupt any statement of the block,
    into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(f"a reader process died: {str(error).splitlines()[0]} {ADVICE}") from error
