"""Every task in every variant, and batches that hold a truth for each of them.

A new row of the table is tested by itself if `batch_of` knows its truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.seeding import generator
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE
from stepsight.tasks.table import build_task
from stepsight.types import IGNORE, Batch

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "depth": [
        {"space": space, "range": limits, "merge_by": merge_by}
        for space in ("log", "inverse", "linear", "disparity")
        for limits, merge_by in (("quantile", "median"), ("metric", "mean"))
    ]
    + [{"range": "quantile", "prompt": "valid"}],
    "flow": [
        {},
        {"scale": 7.0, "cost_volume": False, "merge_by": "median"},
        {"scale": 75.0, "grid": (384, 512), "components": "separate"},
    ],
    "amodal": [
        {},
        {"target": "rgb", "background": "border"},
        {"target": "rgb", "background": "threshold", "threshold": 250},
    ],
    "semantic": [{}, *({"classes": 9, "encoding": code} for code in ("bits", "palette"))],
    "normals": [{}, {"axes": "right_up_back"}, {"axes": "left_up_back"}],
}
CASES = [
    pytest.param((name, options), id=f"{name}-{'-'.join(map(str, options.values()))}")
    for name in TABLE
    for options in VARIANTS.get(name, [{}])
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The name of a task and the settings of one variant."""
    return request.param


@pytest.fixture
def task(case: tuple[str, dict[str, Any]]) -> Task:
    name, options = case
    return build_task(TABLE[name](**options))


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    return _batch_of


@pytest.fixture
def batch_for() -> Callable[..., Batch]:
    """As `batch_of`, with the classes of a task."""
    return lambda task, size, **more: _batch_of(size, classes=getattr(task, "classes", 7), **more)


@pytest.fixture
def row_of() -> Callable[[Batch, int], Batch]:
    """One row of a batch, as a batch."""

    def take(batch: Batch, row: int) -> Batch:
        parts: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
        return Batch(
            **{k: v[row : row + 1] if isinstance(v, Tensor | list) else v for k, v in parts.items()}
        )

    return take


@pytest.fixture
def members_of(batch_for: Callable[..., Batch]) -> Callable[..., Tensor]:
    """Different samples "e b c h w" around one target of 2 images."""

    def draw(task: Task, count: int = 5) -> Tensor:
        truth = task.encode(batch_for(task, (6, 9), rows=2, valid=1.0)).x
        return truth + torch.randn(count, *truth.shape, generator=generator("noise", count))

    return draw


def _batch_of(size: tuple[int, int], rows: int = 3, classes: int = 7, valid: float = 0.7) -> Batch:
    """Random images and truths of every kind; about `valid` of the pixels count.

    The whole object is a dark rectangle, so that its picture on white tells its mask; at most its
    left half is visible.
    """
    height, width = size
    draw = generator("task table", height, width, rows)

    def uniform(channels: int) -> Tensor:
        return torch.rand(rows, channels, height, width, generator=draw)

    amodal = torch.zeros(rows, 1, height, width, dtype=torch.bool)
    amodal[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    modal = amodal & (uniform(1) < 0.5)
    modal[..., width // 2 + 1 :] = False
    return Batch(
        image=2 * uniform(3) - 1,
        keys=[f"key{row}" for row in range(rows)],
        sources=["toys"] * rows,
        second=2 * uniform(3) - 1,
        depth=1.4 + 9 * uniform(1),
        depth_valid=uniform(1) < valid,
        flow=20 * uniform(2) - 10,
        flow_valid=uniform(1) < valid,
        labels=(classes * uniform(1))[:, 0].long().masked_fill(uniform(1)[:, 0] > valid, IGNORE),
        modal=modal,
        amodal=amodal,
        amodal_valid=uniform(1) < valid,
        whole=torch.where(amodal, 1.8 * uniform(3) - 1, 1.0),
        normals=F.normalize(uniform(3) - 0.5, dim=1),
        normals_valid=uniform(1) < valid,
        class_id=torch.arange(rows) % classes,
    )
