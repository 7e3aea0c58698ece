"""A source of awkward samples, and its shards opened again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import stepsight.data
from stepsight.data.fields import QUANTITIES
from stepsight.data.sharded.reading import Shards
from stepsight.types import Sample

COUNT, PER_SHARD = 7, 3


class Toys:
    """Samples with every field, of two sizes; the keys are awkward on purpose."""

    name = "toys"
    classes, categories = ("sky", "road"), tuple("abcdefg")
    quantities, size = QUANTITIES, (6, 10)
    published = {"train": 9}

    def __init__(self, made: Callable[..., Sample], count: int = COUNT) -> None:
        self.rows = [_awkward(made(n, 6 + n % 2, 10), n) for n in range(count)]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        return self.rows[index]

    def samples(self, indices) -> list[Sample]:
        return [self[index] for index in indices]


def _awkward(sample: Sample, number: int) -> Sample:
    assert sample.labels is not None and sample.flow_valid is not None
    order = torch.arange(4 * (number % 3)).view(-1, 4) if number else None
    return replace(
        sample,
        key=f"scene.{number}/{'long ' * 20}ü",
        source="toys",
        instances=sample.labels % 300 - 1,
        occluded=~sample.flow_valid,
        order=order,
        class_id=None if number == 2 else number,
    )


def shards(root: Path, split: str = "train", **options) -> Shards:
    opened = stepsight.data.open("shards", str(root), split=split, **options)
    assert isinstance(opened, Shards)
    return opened
