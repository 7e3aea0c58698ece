"""Rows of a structured type on disk: made once, shared by processes through the page cache.

A folder with `rows-00000.npy`, ... (structured arrays of `SHARD` rows), `done.npy` (a byte each),
`store.json` (what the rows are of) and, where some could not be made, `bad.jsonl` (why not). Rows
are read through memory maps. They are written through the file, because a full disk raises there,
where a mapping would be killed, and flagged after they have reached the disk: whoever is killed
while filling leaves blank rows, never false ones.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from stepsight.data.bad import append_note, read_notes
from stepsight.data.decoding.disk import writing
from stepsight.errors import DataFormatError, UserError

BLOCK = 64  # consecutive rows made and flagged together
SHARD = 64 * BLOCK  # rows per file
FORMAT = 2
DONE, DESCRIPTION, REASONS = "done.npy", "store.json", "bad.jsonl"
BLANK, MADE, BAD = 0, 1, 2  # states of a row
WAY_OUT = " Name another folder, or remove this one to make it anew."


class Store:
    """`len(store)` rows, blank until they are written."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        description: Mapping[str, Any],
        count: int | None = None,
        row_type: Callable[[], np.dtype] | None = None,
    ) -> None:
        """Open what is in `folder`; with a `count`, lay out so many blank rows if none are there.

        kind: what it is called in messages, such as "bank". description: what the rows are of.
        Processes may do this at the same time: the first to finish wins. Raises `UserError` if the
        folder holds something else.
        """
        self.folder, self.kind = folder, kind
        wanted = {"format": FORMAT, "kind": kind, **description}
        if count is not None and row_type is not None and not (folder / DESCRIPTION).exists():
            _lay_out(folder, wanted, count, row_type())
        _check_description(folder, kind, wanted)
        done = _open_array(folder / DONE)
        self._done = np.asarray(done)  # quicker to index than a map
        self._offsets = {DONE: done.offset}
        self._shards: dict[int, np.ndarray] = {}
        self.dtype = self._shard(0).dtype
        if count is not None and len(self) != count:
            raise UserError(f"{folder}: this {kind} has {len(self)} rows, not {count}.{WAY_OUT}")

    def __len__(self) -> int:
        return len(self._done)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Copies of some rows. Raises `UserError` for rows that are blank or could not be made."""
        states = self._done[indices]
        if (blank := indices[states == BLANK]).size:
            raise UserError(f"{self.folder}: row {blank[0]} is blank; fill the {self.kind} first.")
        if (bad := indices[states == BAD]).size:
            raise UserError(f"{self.folder}: {self.reason(int(bad[0]))}")
        shards = indices // SHARD
        if len(indices) and (shards == shards[0]).all():
            return self._shard(int(shards[0]))[indices % SHARD]
        rows = np.empty(len(indices), self.dtype)
        for number in np.unique(shards):
            mine = shards == number
            rows[mine] = self._shard(int(number))[indices[mine] % SHARD]
        return rows

    def missing(self) -> int:
        """How many rows are still blank."""
        return int((self._done == BLANK).sum())

    def bad(self, indices: Sequence[int]) -> np.ndarray:
        """Which of some rows could not be made, bool."""
        return self._done[np.asarray(indices)] == BAD

    def reason(self, index: int) -> str:
        """Why a row could not be made."""
        reasons = {note["key"]: str(note["reason"]) for note in read_notes(self.folder / REASONS)}
        return reasons.get(index, f"row {index} could not be made.") + WAY_OUT

    def blank_blocks(self, rank: int, world: int, stop: int | None) -> list[range]:
        """Blocks with blank rows below `stop`: every `world`-th, from block `rank`."""
        end = len(self) if stop is None else min(stop, len(self))
        blocks = [range(s, min(s + BLOCK, end)) for s in range(rank * BLOCK, end, world * BLOCK)]
        return [block for block in blocks if not self._done[block.start : block.stop].all()]

    def write(self, block: range, rows: np.ndarray, bad: Mapping[int, str] | None = None) -> None:
        """Put the rows of a block in place, wait until they are on the disk, and flag them.

        bad: why some of them, by number, could not be made.
        """
        states = np.full(len(block), MADE, np.uint8)
        for index, reason in (bad or {}).items():
            note = {"source": self.kind, "key": index, "reason": reason}
            append_note(self.folder / REASONS, note)
            states[index - block.start] = BAD
        number, start = divmod(block.start, SHARD)
        self._shard(number)
        self._write(_shard_name(number), start, rows)
        self._write(DONE, block.start, states)

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            name = _shard_name(number)
            rows = _open_array(self.folder / name)
            self._offsets[name], self._shards[number] = rows.offset, np.asarray(rows)
        return self._shards[number]

    def _write(self, name: str, start: int, values: np.ndarray) -> None:
        path = self.folder / name
        with writing(path), path.open("r+b") as file:
            file.seek(self._offsets[name] + start * values.itemsize)
            file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())


def _shard_name(number: int) -> str:
    return f"rows-{number:05d}.npy"


def _lay_out(folder: Path, description: dict[str, Any], count: int, dtype: np.dtype) -> None:
    """A blank store, built aside and renamed, so that the folder is never seen half made."""
    try:
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        aside.mkdir(parents=True)
        for number, start in enumerate(range(0, count, SHARD)):
            open_memmap(aside / _shard_name(number), "w+", dtype, (min(SHARD, count - start),))
        open_memmap(aside / DONE, "w+", np.uint8, (count,))
        (aside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        try:
            aside.rename(folder)
        except OSError:  # another process may have been first
            shutil.rmtree(aside)
            if not folder.exists():
                raise
    except OSError as error:
        raise UserError(f"{folder}: cannot make a {description['kind']} here ({error}).") from error


def _check_description(folder: Path, kind: str, wanted: dict[str, Any]) -> None:
    path = folder / DESCRIPTION
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: holds no readable {kind} ({error}).") from error
    if not isinstance(stored, dict):
        raise DataFormatError(f"{path}: does not describe a {kind}.")
    wanted = json.loads(json.dumps(wanted))  # as it reads from a file: tuples are lists
    differing = [name for name in wanted if stored.get(name) != wanted[name]]
    if differing:
        values = "; ".join(f"{n} {stored.get(n)!r}, not {wanted[n]!r}" for n in differing)
        raise UserError(f"{folder}: this {kind} is of {values}.{WAY_OUT}")


def _open_array(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataFormatError(f"{path}: damaged ({error}).") from error
