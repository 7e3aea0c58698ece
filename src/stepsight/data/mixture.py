"""Which samples make batch number s: a pure function of (seed, s), the same on every process.

One batch serves one stream, a pair of a task and a source. Streams share blocks of `BLOCK` batches
by their weights; within a block their order is shuffled. Each stream walks through its source in
a fresh permutation every epoch, so nothing is lost or repeated within one. A source whose samples
are independent of their index (procedural scenes) is walked in order in its first epoch, so that
training can begin before the later samples are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stepsight.errors import UserError
from stepsight.seeding import numpy_generator

BLOCK = 60  # batches; divisible by 2, 3, 4, 5 and 6, so that equal weights share equally


@dataclass(frozen=True)
class Stream:
    """A source read for a task."""

    task: str
    source: str
    weight: float
    length: int  # samples in the source
    independent: bool = False  # samples are independent of their index


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
                raise UserError(f"{stream.source}: no samples for task {stream.task}.")
        self.batch, self.seed = batch, seed
        edges = np.cumsum([stream.weight for stream in self.streams])
        slots = (np.arange(BLOCK) + 0.5) / BLOCK * edges[-1]
        self._slots = np.searchsorted(edges, slots)  # systematic sampling: stream of each slot
        self._counts = np.bincount(self._slots, minlength=len(self.streams))
        for stream, count in zip(self.streams, self._counts):
            if not count:
                raise UserError(
                    f"the weight of {stream.task} on {stream.source} is under 1/{BLOCK}."
                )
        self._block = lru_cache(maxsize=4)(self._shuffled_block)
        self._order = lru_cache(maxsize=2 * len(self.streams))(self._permutation)

    def shares(self) -> dict[str, float]:
        """Realised share of the batches by task, over whole blocks."""
        shares: dict[str, float] = {}
        for stream, count in zip(self.streams, self._counts):
            shares[stream.task] = shares.get(stream.task, 0.0) + float(count) / BLOCK
        return shares

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
        rng = numpy_generator(self.seed, "order", stream.task, stream.source, epoch)
        return rng.permutation(stream.length)
