"""A bank: samples at their working size, made once, read by many processes in microseconds.

A folder with `rows.npy` (a structured array, one row a sample), `done.npy` (one byte a row) and
`bank.json` (what the rows are of). Rows are read through a memory map, so processes share them in
the page cache. They are written through the file, because a full disk raises there, where a mapping
would be killed, and flagged after they have reached the disk: whoever is killed while filling
leaves blank rows, never false ones.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib.format import open_memmap

from stepsight.data.resize import resize_sample
from stepsight.data.rows import pack, row_dtype, unpack
from stepsight.data.table import Source
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

BLOCK = 64  # consecutive rows made and flagged together
FORMAT = 1
ROWS, DONE, DESCRIPTION = "rows.npy", "done.npy", "bank.json"
WAY_OUT = " Name another folder, or remove this one to make it anew."


class Bank:
    """The first `len(bank)` samples of a source at `source.size`; itself a source."""

    def __init__(self, source: Source, folder: str | Path, fingerprint: str) -> None:
        """Open what is in `folder`. Raises `UserError` unless it is a bank of this source."""
        self.folder, self.source, self.fingerprint = Path(folder), source, fingerprint
        self.name, self.classes = source.name, source.classes
        self.quantities, self.size = source.quantities, source.size
        _check_description(self.folder, _description(source, fingerprint))
        rows, done = _open_array(self.folder / ROWS), _open_array(self.folder / DONE)
        self._offsets = {ROWS: rows.offset, DONE: done.offset}
        self._rows, self._done = np.asarray(rows), np.asarray(done)  # quicker to index than maps

    @classmethod
    def create(cls, source: Source, count: int, folder: str | Path, fingerprint: str) -> Self:
        """Open the bank in `folder`, after laying out a blank one of `count` rows if none is there.

        Processes may call this at the same time: the first to finish wins. Raises `UserError` if
        the folder holds something else.
        """
        assert 0 < count <= len(source), (count, len(source))
        if not (Path(folder) / DESCRIPTION).exists():
            _lay_out(source, count, Path(folder), fingerprint)
        bank = cls(source, folder, fingerprint)
        if len(bank) != count:
            raise UserError(f"{folder}: this bank has {len(bank)} rows, not {count}.{WAY_OUT}")
        return bank

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self.samples([index])[0]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        """`resize_sample(source[i], size)` for each, bit for bit. Raises `UserError` for blanks."""
        wanted = np.fromiter(indices, np.intp)
        if (blank := wanted[self._done[wanted] == 0]).size:
            raise UserError(f"{self.folder}: row {blank[0]} is blank; fill the bank first.")
        return unpack(self._rows[wanted], self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.folder, self.fingerprint)  # map again, never copy

    def missing(self) -> int:
        """How many rows are blank by now."""
        return int((self._done == 0).sum())

    def fill(
        self,
        rank: int = 0,
        world: int = 1,
        report: Callable[[int, int], None] | None = None,
        stop: int | None = None,
    ) -> None:
        """Make this process's share of the blank rows: every `world`-th block, from block `rank`.

        Rows from `stop` on are left for later.

        `report(made, total)` is called after each block with counts of rows of this share.
        """
        end = len(self) if stop is None else min(stop, len(self))
        starts = range(rank * BLOCK, end, world * BLOCK)
        blocks = [range(start, min(start + BLOCK, end)) for start in starts]
        blank = [block for block in blocks if not self._done[block.start : block.stop].all()]
        made, total = 0, sum(map(len, blank))
        for block in blank:
            self._fill_block(block)
            made += len(block)
            if report is not None:
                report(made, total)

    def _fill_block(self, block: range) -> None:
        rows = np.zeros(len(block), self._rows.dtype)
        for row, sample in zip(rows, self.source.samples(block)):
            pack(resize_sample(sample, self.size), row)
        self._write(ROWS, block.start, rows)
        self._write(DONE, block.start, np.ones(len(block), np.uint8))

    def _write(self, name: str, start: int, values: np.ndarray) -> None:
        """Write array elements from `start` on, and wait until they are on the disk."""
        path = self.folder / name
        try:
            with path.open("r+b") as file:
                file.seek(self._offsets[name] + start * values.itemsize)
                file.write(values.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error}).") from error


def _description(source: Source, fingerprint: str) -> dict[str, Any]:
    size = list(source.size)
    return {"format": FORMAT, "source": source.name, "size": size, "fingerprint": fingerprint}


def _lay_out(source: Source, count: int, folder: Path, fingerprint: str) -> None:
    """A blank bank, built aside and renamed, so that the folder is never seen half made."""
    dtype = row_dtype(resize_sample(source[0], source.size))
    try:
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        aside.mkdir(parents=True)
        open_memmap(aside / ROWS, "w+", dtype, (count,))
        open_memmap(aside / DONE, "w+", np.uint8, (count,))
        text = json.dumps(_description(source, fingerprint), indent=2)
        (aside / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        _rename_or_drop(aside, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot make a bank here ({error}).") from error


def _rename_or_drop(aside: Path, folder: Path) -> None:
    """Give `aside` its name, or remove it if another process was first."""
    try:
        aside.rename(folder)
    except OSError:
        shutil.rmtree(aside)
        if not folder.exists():
            raise


def _check_description(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: holds no readable bank ({error}).") from error
    if not isinstance(found, dict):
        raise DataFormatError(f"{path}: does not describe a bank.")
    differing = [f"{k} {found.get(k)!r}, not {v!r}" for k, v in wanted.items() if found.get(k) != v]
    if differing:
        raise UserError(f"{folder}: this bank is of {'; '.join(differing)}.{WAY_OUT}")


def _open_array(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataFormatError(f"{path}: damaged ({error}).") from error
