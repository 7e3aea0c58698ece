"""What the tests of the pipeline share: one that is untrained, and whose answers depend on all
that they may depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest
import torch

from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks

TASKS = ("depth", "flow", "amodal", "semantic", "normals")
SIZE = (24, 32)


def _make(
    sampler: str = "ddim", eta: float = 0.0, tasks: Iterable[str] | Mapping[str, dict] = TASKS
) -> DensePipeline:
    """`tasks`: names, or settings by name."""
    settings = tasks if isinstance(tasks, Mapping) else {task: {} for task in tasks}
    config = from_dict(
        {
            "model": {"name": "split-8"},
            "tasks": dict(settings),
            "diffusion": {"sampler": sampler, "eta": eta},
        }
    )
    built = build_tasks(config.tasks)
    net = build_network(config, built, Pixels()).eval().requires_grad_(False)
    draw = generator("pipeline tests")
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return DensePipeline(net, built, config, {task: SIZE for task in tasks})


@pytest.fixture(scope="session")
def make() -> Callable[..., DensePipeline]:
    return _make


@pytest.fixture(scope="session")
def pipeline() -> DensePipeline:
    return _make()


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int], np.ndarray]:
    """A picture "h w 3" of random colours."""

    def draw(height: int, width: int) -> np.ndarray:
        colours = np.random.default_rng(height * width)
        return colours.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return draw
