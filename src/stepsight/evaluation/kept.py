"""Samples that are read once: scoring asks for the same ones task by task, setting by setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stepsight.data.table import Source
from stepsight.types import Sample

ROOM = 2**28  # bytes of samples that a source keeps; what comes after is read each time


class Kept:
    """A source whose samples stay in memory, as many as `room` bytes hold; in all else it is the
    source that it was made of. Samples are shared between callers, who must not write to them."""

    def __init__(self, source: Source, room: int = ROOM) -> None:
        self._source, self._left = source, room
        self._samples: dict[int, Sample] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self._source, name)

    name: str
    classes: tuple[str, ...]
    categories: tuple[str, ...]
    quantities: frozenset[str]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        return self.samples([index])[0]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        """Several samples; those that are not in memory are read together."""
        indices = list(indices)
        fresh = [index for index in dict.fromkeys(indices) if index not in self._samples]
        read = dict(zip(fresh, self._source.samples(fresh), strict=True)) if fresh else {}
        for index, sample in read.items():
            if (size := _bytes(sample)) <= self._left:
                self._samples[index], self._left = sample, self._left - size
        return [read.get(index) or self._samples[index] for index in indices]


def _bytes(sample: Sample) -> int:
    held = (getattr(sample, field.name) for field in fields(sample))
    tensors = [value for value in (*held, *sample.extra.values()) if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)
