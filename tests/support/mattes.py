"""The quantities of another package, and a source whose samples have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepsight.data.fields import Field, present, validity, with_values
from stepsight.types import Sample

HEIGHT, WIDTH = 6, 8


def read_matte(path: Path, settings: object) -> tuple[Tensor, Tensor]:
    values = torch.from_numpy(np.load(path))[None]
    return values.nan_to_num(0), values.isfinite()


def outside(matte: Tensor, sample: Sample, source: object) -> Iterator[str]:
    if ((matte < 0) | (matte > 1)).any():
        yield "the matte leaves [0, 1]"


ROWS = (
    Field(
        "matte",
        "map",
        valid="matte_valid",
        average=True,
        problems=outside,
        suffixes=(".npy",),
        read=read_matte,
    ),
    validity("matte"),
    Field("trimap", "ids", brought_by=("matte",), id_type=np.uint8),
    Field("swirl", "map", channels=2, negated=(0,)),
    Field("clean", "picture", brought_by=("matte",)),
    Field("corners", "points", channels=2),
)


def made(seed: int = 0, height: int = HEIGHT, width: int = WIDTH, points: bool = False) -> Sample:
    rng = torch.Generator().manual_seed(seed)

    def uniform(channels: int) -> Tensor:
        return torch.rand(channels, height, width, generator=rng)

    sample = Sample((uniform(3) * 256).byte(), f"key {seed}", "mattes", depth=1 + uniform(1))
    extra = {
        "matte": uniform(1),
        "matte_valid": uniform(1) < 0.8,
        "trimap": (uniform(1) * 3).long()[0],
        "swirl": uniform(2) - 0.5,
        "clean": (uniform(3) * 256).byte(),
    }
    sample.depth_valid = torch.ones(1, height, width, dtype=torch.bool)
    corners = {"corners": torch.tensor([[0, 1], [5, 7]])} if points else {}
    return with_values(sample, extra | corners)


def assert_equal(one: Sample, other: Sample) -> None:
    assert (one.key, one.extra.keys()) == (other.key, other.extra.keys())
    for (row, a), (_, b) in zip(present(one), present(other), strict=True):
        assert a == b if row.kind == "number" else (a.dtype == b.dtype and torch.equal(a, b)), row


@dataclass
class Mattes:
    """A source of another package."""

    count: int = 3
    size: tuple[int, int] = (HEIGHT, WIDTH)
    quantities: frozenset[str] = frozenset({"depth", "matte", "swirl"})
    classes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    name: str = "mattes"
    rows: list[Sample] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return made(index)

    def samples(self, indices) -> list[Sample]:
        return [self[index] for index in indices]
