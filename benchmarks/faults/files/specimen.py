"""A file of one kind, whole, with how it is damaged and what reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.files.mutation import Mutation
from stepsight import data

Read = Callable[[Path], object]  # of the file
HEIGHT, WIDTH = 6, 8


@dataclass(frozen=True)
class Specimen:
    """A file that can be damaged, at `name` below a folder in which `others` may lie."""

    name: str
    content: bytes
    mutate: Mutation
    reads: tuple[Read, ...]  # taken in turn; given its path
    others: tuple[tuple[str, bytes], ...] = ()

    def lay_out(self, folder: Path) -> Path:
        for name, content in ((self.name, self.content), *self.others):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.name


def opened(name: str, depth: int = 0, split: str = "all", **options: Any) -> Read:
    """Open the data set that the file belongs to, `depth` folders above it, and read it all."""

    def read(path: Path) -> None:
        source = data.open(name, str(path.parents[depth]), split=split, **options)
        source.samples(range(len(source)))

    return read


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
