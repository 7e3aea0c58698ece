"""Which samples make batch number s: a pure function of (seed, s), the same on every process.

A batch is of one stream: a source (or a part of it: its samples that have truth for the same tasks,
or a bucket, those of about one shape), and the tasks whose truth its samples have, all of which
learn from every sample. Streams share blocks of
`BLOCK` batches by their weights; within a block their order is shuffled. Each stream walks through
its source in a fresh permutation every epoch, so nothing is lost or repeated within one. Where
samples lie in groups (the tars of a sharded source), the groups are shuffled and then the samples
inside each, so that reads stay within a file at a time. A source whose samples are independent of
their index (procedural scenes) is walked in order in its first epoch, so that training can begin
before the later samples are made.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from stepsight.errors import UserError
from stepsight.seeding import numpy_generator

Number = TypeVar("Number", int, float)
Name = TypeVar("Name", bound=Hashable)
REPLACEMENTS = 64  # samples tried in place of one that cannot be read
BLOCK = 60  # batches; divisible by 2, 3, 4, 5 and 6, so that equal weights share equally


@dataclass(frozen=True)
class Stream:
    """A source read for the tasks that it serves."""

    tasks: tuple[str, ...]
    source: str
    weight: float
    length: int  # samples in the source, or in this part of it: those with truth for the tasks, or
    # a bucket
    independent: bool = False  # samples are independent of their index
    groups: Sequence[Sequence[int] | np.ndarray] = field(default=(), compare=False, repr=False)
    """Indices of samples that lie in one file; without groups, all from 0 to `length`."""
    size: tuple[int, int] | None = None  # working height and width; None: those of the source

    shares: tuple[float, ...] = field(default=(), compare=False)  # of the tasks; (): equal ones

    def share(self, task: str) -> float:
        """The share of the stream's weight that it has for a task."""
        shares = self.shares or (1.0,) * len(self.tasks)
        return shares[self.tasks.index(task)] / sum(shares)

    @property
    def label(self) -> str:
        """Its tasks in a word."""
        return "+".join(self.tasks)

    def indices(self) -> np.ndarray:
        """The numbers of its samples in the source."""
        groups = [np.asarray(group) for group in self.groups]
        return np.concatenate(groups) if groups else np.arange(self.length)

    def only(self, inside: np.ndarray) -> Stream:
        """The stream without the samples that are not `inside`, bools by number."""
        groups = [np.asarray(group) for group in self.groups or [range(self.length)]]
        kept = [part for group in groups if len(part := group[inside[group]])]
        return replace(self, groups=kept, length=sum(map(len, kept)))

    def replacements(self, seed: int, number: int) -> Iterator[int]:
        """The samples to try in turn where that of image `number` cannot be read: a function of
        these numbers alone, so that all who meet it agree."""
        rng = numpy_generator(seed, "replacement", self.source, number)
        for place in rng.integers(self.length, size=REPLACEMENTS).tolist():
            for group in self.groups or [range(self.length)]:
                if place < len(group):
                    yield int(group[place])
                    break
                place -= len(group)


@dataclass(frozen=True)
class Draw:
    """One global batch: where to read, and which rows to mirror."""

    stream: Stream
    indices: tuple[int, ...]
    mirrored: tuple[bool, ...]


class Mixture:
    """Draws of `batch` samples by step number."""

    def __init__(self, streams: Sequence[Stream], batch: int, seed: int) -> None:
        self.streams = [stream for stream in streams if stream.weight > 0]
        if not self.streams:
            raise UserError("no task with a positive weight has a source with its truth.")
        for stream in self.streams:
            if not stream.length:
                raise UserError(f"{stream.source}: no samples for task {stream.label}.")
        self.batch, self.seed = batch, seed
        edges = np.cumsum([stream.weight for stream in self.streams])
        slots = (np.arange(BLOCK) + 0.5) / BLOCK * edges[-1]
        self._slots = np.searchsorted(edges, slots)  # systematic sampling: stream of each slot
        self._counts = np.bincount(self._slots, minlength=len(self.streams))
        for stream, count in zip(self.streams, self._counts):
            if not count:
                raise UserError(
                    f"the weight of {stream.label} on {stream.source} is under 1/{BLOCK}."
                )
        self._block = lru_cache(maxsize=4)(self._shuffled_block)
        self._order = lru_cache(maxsize=2 * len(self.streams))(self._permutation)

    def shares(self) -> dict[str, float]:
        """Realised share of the batches that each task learns from, over whole blocks."""
        return self._sums([float(count) / BLOCK for count in self._counts], lambda task, _: task)

    def declared(self) -> dict[tuple[str, str], float]:
        """Share of the batches by task and source that the weights ask for; a batch counts for
        each of its tasks."""
        total = sum(stream.weight for stream in self.streams)
        return self._sums([stream.weight / total for stream in self.streams], _by_source)

    def distinct(self) -> dict[str, int]:
        """How many different samples each task draws from."""
        return self._sums([stream.length for stream in self.streams], lambda task, _: task)

    def counts(self, steps: int) -> dict[tuple[str, str], int]:
        """Images of the first `steps` batches, by task and source."""
        blocks, rest = divmod(steps, BLOCK)
        begun = np.bincount(self._block(blocks)[:rest], minlength=len(self.streams))
        batches = blocks * self._counts + begun
        return self._sums([int(count) * self.batch for count in batches], _by_source)

    def _sums(
        self, values: Sequence[Number], name: Callable[[str, Stream], Name]
    ) -> dict[Name, Number]:
        """Sums of the streams' values over each task, under what `name` makes of the two."""
        sums: dict[Name, Number] = {}
        for stream, value in zip(self.streams, values):
            for task in stream.tasks:
                key = name(task, stream)
                sums[key] = sums[key] + value if key in sums else value
        return sums

    def draw(self, step: int) -> Draw:
        """Batch number `step`, counted from 0."""
        block, slot = divmod(step, BLOCK)
        order = self._block(block)
        which = int(order[slot])
        before = block * int(self._counts[which]) + int((order[:slot] == which).sum())
        stream = self.streams[which]
        indices = [self._index(which, before * self.batch + row) for row in range(self.batch)]
        coins = numpy_generator(self.seed, "mirror", step).random(self.batch)
        return Draw(stream, tuple(indices), tuple(bool(coin < 0.5) for coin in coins))

    def _index(self, which: int, position: int) -> int:
        epoch, offset = divmod(position, self.streams[which].length)
        return int(self._order(which, epoch)[offset])

    def _shuffled_block(self, block: int) -> np.ndarray:
        return numpy_generator(self.seed, "streams", block).permutation(self._slots)

    def _permutation(self, which: int, epoch: int) -> np.ndarray:
        stream = self.streams[which]
        if stream.independent and epoch == 0:
            return np.arange(stream.length)
        bucket = ["{}x{}".format(*stream.size)] if stream.size else []
        rng = numpy_generator(self.seed, "order", stream.label, stream.source, *bucket, epoch)
        if not stream.groups:
            return rng.permutation(stream.length)
        groups = [stream.groups[number] for number in rng.permutation(len(stream.groups))]
        return np.concatenate([rng.permutation(np.asarray(group)) for group in groups])


def _by_source(task: str, stream: Stream) -> tuple[str, str]:
    return task, stream.source
