"""Rendered scenes on disk: one folder with a memory-mapped array of rows and one of flags.

A row counts once its flag in `done.npy` is set, and that happens after the row has been flushed to
the disk: a run that is killed leaves no half-written scene, only some to render anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Row = dict[str, Tensor]


class Cache:
    """Rows 0 .. count - 1 in `folder`, rendered when first asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count

    def rows(
        self, indices: Sequence[int], render: Callable[[Sequence[int]], list[Row]]
    ) -> list[Row]:
        """The rows `indices`; `render` makes those that are not on disk yet."""
        done = self._open("done.npy", np.dtype(bool))
        missing = [index for index in dict.fromkeys(indices) if not done[index]]
        if missing:
            self._write(missing, render(missing), done)
        stored = np.load(self.folder / "rows.npy", mmap_mode="r")
        return [_row(stored[index]) for index in indices]

    def _write(self, indices: Sequence[int], rows: list[Row], done: np.memmap) -> None:
        stored = self._open("rows.npy", _layout(rows[0]))
        for index, row in zip(indices, rows, strict=True):
            for name, value in row.items():
                stored[name][index] = value.numpy()
        stored.flush()
        done[list(indices)] = True
        done.flush()

    def _open(self, name: str, dtype: np.dtype) -> np.memmap:
        """The array of all rows, created whole (sparse, zero) by whichever process comes first."""
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            np.lib.format.open_memmap(draft, mode="w+", dtype=dtype, shape=(self.count,))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            draft.unlink()
        return np.lib.format.open_memmap(path, mode="r+")


def _layout(row: Row) -> np.dtype:
    return np.dtype([(name, value.numpy().dtype, value.shape) for name, value in row.items()])


def _row(stored: np.void) -> Row:
    """A copy of one stored row as tensors."""
    assert stored.dtype.names
    return {name: torch.from_numpy(np.array(stored[name])) for name in stored.dtype.names}
