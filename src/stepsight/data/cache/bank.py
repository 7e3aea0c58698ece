"""A bank: samples at their working size, made once, read by many processes in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.bad import BadItems
from stepsight.data.cache.rows import pack, row_dtype, unpack
from stepsight.data.cache.store import Store
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source, SourcePart, first_readable, read_samples, truths_of
from stepsight.errors import UserError
from stepsight.types import Sample


class Bank:
    """The first `len(bank)` samples of a source at `source.size`; itself a source."""

    def __init__(
        self, source: Source, folder: str | Path, fingerprint: str, count: int | None = None
    ) -> None:
        """Open what is in `folder`; with a `count`, lay out so many blank rows if none are there.

        Processes may do this at the same time: the first to finish wins. Raises `UserError` if the
        folder holds anything but a bank of this source.
        """
        assert count is None or 0 < count <= len(source), (count, len(source))
        self.source, self.folder, self.fingerprint = source, Path(folder), fingerprint
        self.name, self.classes = source.name, source.classes
        self.quantities, self.size = source.quantities, source.size
        self.truths = truths_of(source)
        made_of = {"source": source.name, "size": list(source.size), "fingerprint": fingerprint}

        def row_type() -> np.dtype:
            kinds = dict.fromkeys(self.truths)  # of samples, by what they have
            parts = [
                SourcePart(source, [i for i, t in enumerate(self.truths) if t == k]) for k in kinds
            ]
            firsts = [resize_sample(first_readable(one), source.size) for one in parts or [source]]
            return row_dtype(*firsts)

        self.store = Store(self.folder, "bank", made_of, count, row_type)

    @property
    def categories(self) -> tuple[str, ...]:
        return self.source.categories

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Sample:
        return self.samples([index])[0]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        """`resize_sample(source[i], size)` for each, bit for bit. Raises `UserError` for blanks."""
        return unpack(self.store.read(np.fromiter(indices, np.intp)), self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.folder, self.fingerprint)  # map again, never copy

    def missing(self) -> int:
        """How many rows are still blank."""
        return self.store.missing()

    def fill(
        self,
        rank: int = 0,
        world: int = 1,
        report: Callable[[int], None] = lambda rows: None,
        stop: int | None = None,
        bad: BadItems | None = None,
    ) -> None:
        """Make this process's share of the blank rows: every `world`-th block, from block `rank`.

        Rows from `stop` on are left for later. `report` gets the number of rows after each block.
        bad: what to do about samples that cannot be read, whose rows are marked; None: stop.
        """
        for block in self.store.blank_blocks(rank, world, stop):
            rows, marks = np.zeros(len(block), self.store.dtype), Marks(self.source, bad)
            for row, index, sample in zip(
                rows, block, read_samples(self.source, block, marks.mark)
            ):
                if sample is None:
                    continue
                try:
                    pack(resize_sample(sample, self.size), row)
                except UserError as error:
                    marks.mark(index, error)
            self.store.write(block, rows, marks.reasons)
            report(len(block))


class Marks:
    """The samples of a source that could not be read while rows were made of them, and why not."""

    def __init__(self, source: Source, bad: BadItems | None) -> None:
        self._source, self._bad = source, bad or BadItems()
        self.reasons: dict[int, str] = {}

    def mark(self, index: int, error: UserError) -> None:
        """Raises `UserError` where that is the policy, or where there are too many."""
        self._bad.met(self._source.name, index, error, of=len(self._source))
        self.reasons[index] = str(error)
