"""Reading samples anew each time, in the training process or ahead of it in other processes.

What is read is fixed by the requests, which follow from the step number alone; who reads it, and
how far ahead, changes nothing. So any number of readers gives the same batches in the same order,
and a run that stopped anywhere begins at its next request.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from stepsight import distributed, signals
from stepsight.data.augment import augment
from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.config import FileSettings
from stepsight.data.mixture import Draw, Stream
from stepsight.data.table import Source, read_sample
from stepsight.data.workers import as_is
from stepsight.distributed.board import say
from stepsight.distributed.place import state
from stepsight.errors import UserError
from stepsight.types import Batch, Sample

PATIENCE = 0.8  # of the time that a step may take: then the reader of a batch counts as hung
STOPPED = 50.0  # seconds to wait for one that is stopped
STOP = ", which is stopped"
SAID = 30.0  # seconds of waiting after which it is said
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
    tasks: tuple[str, ...] = ()  # that learn from the batch

    @classmethod
    def of(cls, draw: Draw, step: int, rows: range) -> Self:
        return cls(
            step,
            draw.stream.source,
            draw.stream.size,
            tuple(draw.indices[row] for row in rows),
            tuple(draw.mirrored[row] for row in rows),
            tuple(step * len(draw.indices) + row for row in rows),
            draw.stream.tasks,
        )


@dataclass(frozen=True)
class Answer:
    """What a reader made of a request: a batch, or an error that the user can fix; and what it
    could not read, by number."""

    request: Request
    batch: Batch | None = None
    error: UserError | None = None
    bad: Mapping[int, UserError] = field(default_factory=dict)


class Reader(Dataset[Answer]):
    """Answers requests: reads, augments and stacks. A pure function, in whatever process it is.

    replace: what to draw others from in place of samples that cannot be read; empty: fail.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Mapping[str, FileSettings],
        seed: int,
        flip: bool,
        replace: Sequence[Stream] = (),
    ) -> None:
        self.sources, self.settings = sources, settings
        self.seed, self.flip = seed, flip
        self._replace = {(one.source, one.size, one.tasks): one for one in replace}

    def __getitem__(self, request: Request) -> Answer:
        bad: dict[int, UserError] = {}
        try:
            return Answer(request, self.read(request, bad), bad=bad)
        except UserError as error:  # carried as a value: raised, it would arrive as a traceback
            return Answer(request, error=error, bad=bad)

    def read(self, request: Request, bad: dict[int, UserError] | None = None) -> Batch:
        """The batch; `bad` gets what could not be read of it, by number, and was replaced.

        Raises `UserError` naming the sample that cannot be read, nor be replaced.
        """
        source, settings = self.sources[request.source], self.settings[request.source]
        size, samples, bad = request.size or source.size, [], {} if bad is None else bad
        for index, mirrored, number in zip(request.indices, request.mirrored, request.numbers):
            mirrored = mirrored and self.flip
            sample = self._sample(request, index, number, bad)
            samples.append(augment(sample, settings, size, self.seed, number, mirrored))
        return collate(samples)

    def _sample(
        self, request: Request, index: int, number: int, bad: dict[int, UserError]
    ) -> Sample:
        """Sample `index`, or the first of its replacements that can be read."""
        source, error = self.sources[request.source], None
        stream = self._replace.get((request.source, request.size, request.tasks))
        others = stream.replacements(self.seed, number) if stream else ()
        for other in chain([index], others):
            try:
                return read_sample(source, other)
            except UserError as found:
                error = error or found
                if stream:
                    bad[other] = found
        assert error is not None
        raise error


class Loader:
    """Answers of a `reader`, made by `workers` processes that work ahead; 0: made when asked for.

    following: the requests from a step on, in order; they must be those that will be asked for.
    bad: hears of what could not be read.
    """

    def __init__(
        self,
        reader: Reader,
        following: Callable[[int], Iterator[Request]],
        workers: int,
        patience: float | None = None,
        bad: BadItems | None = None,
    ) -> None:
        self.reader, self.following = reader, following
        self._bad = bad or BadItems()
        self.workers, self.patience = workers, patience or PATIENCE * distributed.step_timeout()
        self._answers: Iterator[Answer] | None = None
        self._expected: Iterator[Request] = iter(())
        self._taken = 0  # answers since the readers began

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
        try:
            for index, error in answer.bad.items():
                length = len(self.reader.sources[request.source])
                self._bad.met(request.source, index, error, of=length)
            if answer.error is not None:
                raise self._bad.advised(answer.error)
        except UserError:
            self.close()
            raise
        assert answer.batch is not None
        return answer.batch

    def close(self) -> None:
        """End the reader processes; the next request starts them again."""
        readers, self._answers = self._readers(), None
        for reader in readers:  # those that torch could not end
            if reader.is_alive():
                reader.kill()
                reader.join()
            elif reader.pid and _is_child(reader.pid):  # given up as dead while it was stopped
                os.kill(reader.pid, signal.SIGKILL)

    def _next(self, request: Request) -> Answer:
        if self._answers is None or next(self._expected) != request:
            self._seek(request)
            next(self._expected)
        again = False
        with self._looked_after(request) as hung:
            while True:
                try:
                    assert self._answers is not None
                    answer = next(self._answers)
                    self._taken += 1
                    return answer
                except (RuntimeError, EOFError, OSError) as error:  # torch's word, or a torn pipe
                    reason, *_ = str(error).splitlines() or [type(error).__name__]
                    if "timed out" in reason and not hung:
                        continue  # all readers are alive: torch looks whenever it times out
                    if reason.startswith("Caught"):  # a bug, with the traceback of the reader
                        self.close()
                        raise
                    if not again and not hung and signals.requested():
                        self._seek(request)  # the signal that ends this program ended them as well
                        next(self._expected)
                        again = True
                        continue
                    reader, _ = self._awaited()
                    self.close()
                    raise UserError(
                        f"a reader process died or hung while {_awaiting(request)} from "
                        f"{hung[0] if hung else f'{reader}: {reason}'} {ADVICE}"
                    ) from error

    @contextmanager
    def _looked_after(self, request: Request) -> Iterator[list[str]]:
        """Say that a batch is awaited for long, and in the end kill who hangs: then the main thread
        goes on, which may be in a call that waits for a reader without end. Gives a list, in which
        it is noted."""
        done, hung, began = Event(), list[str](), time.monotonic()

        def look() -> None:
            said = done.wait(min(SAID, self.patience))
            while not done.wait(LOOK if said else 0):
                waited = time.monotonic() - began
                reader, guilty = self._awaited()
                if not said:
                    said = True
                    say(f"{_awaiting(request)} for {waited:.0f} s, from {reader}")
                if waited > self.patience or (waited > STOPPED and STOP in reader):
                    hung.append(f"{reader}: no answer for {waited:.0f} s.")
                    for process in guilty:
                        process.kill()
                    return

        Thread(target=look, daemon=True).start()
        try:
            yield hung
        finally:
            done.set()

    def _readers(self) -> list[Any]:
        """The reader processes; torch has no name for them."""
        return list(getattr(self._answers, "_workers", ()))

    def _awaited(self) -> tuple[str, list[Any]]:
        """The readers that are stopped, or else the one whose turn it is; in words, too."""
        readers = self._readers()
        stopped = [reader for reader in readers if state(reader.pid)[0] == "T"]
        guilty = stopped or readers[self._taken % max(len(readers), 1) :][:1]
        pids = ", ".join(str(reader.pid) for reader in guilty)
        return f"reader process {pids}{STOP if stopped else ''}", guilty

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
        self._answers, self._taken = iter(served), 0

    def _from(self, request: Request) -> Iterator[Request]:
        requests = self.following(request.step)
        for other in requests:
            assert other.step == request.step, "a request that does not follow from its step"
            if other == request:
                break
        yield request
        yield from requests


def _awaiting(request: Request) -> str:
    samples = ", ".join(map(str, request.indices))
    return f"batch {request.step} is awaited ({request.source}, samples {samples})"


def _is_child(pid: int) -> bool:
    """Whether there is a process of this number that this one started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getpid()


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
