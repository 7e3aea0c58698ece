"""Pipelines that look in views, and the same trajectory written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.models.codec import Codec, Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.views import VIEWS, Frame, shifted
from stepsight.seeding import generator
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

SIZE = (16, 24)
TASKS = ("depth", "flow", "amodal", "semantic", "normals")


def batch_of(rows: int = 2) -> Batch:
    draw = generator("views")
    first, second = (2 * torch.rand(rows, 3, *SIZE, generator=draw) - 1 for _ in range(2))
    modal = torch.rand(rows, 1, *SIZE, generator=draw) < 0.4
    return Batch(first, ["a", "b"][:rows], ["toys"] * rows, second=second, modal=modal)


def pipeline_of(
    name: str = "split-8", tasks: Any = TASKS, codec: Codec | None = None
) -> DensePipeline:
    settings = tasks if isinstance(tasks, dict) else {task: {} for task in tasks}
    config = from_dict({"model": {"name": name}, "tasks": settings})
    built = build_tasks(config.tasks)
    net = build_network(config, built, codec or Pixels()).eval().requires_grad_(False)
    draw = generator("views weights")
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return DensePipeline(net, built, config, dict.fromkeys(built, SIZE), codec=codec)


def frame_of(task: Task, codec: Codec | None = None, rows: int = 2) -> Frame:
    """Of a task of one pass."""
    return Frame(task, codec or Pixels(), torch.zeros(rows, dtype=torch.long))


def naive(pipeline: DensePipeline, batch: Batch, task: str, views: str, nfe: int) -> Tensor:
    """The trajectory written out: view by view, pixel columns turned round by hand."""
    seen = VIEWS[views]
    times = pipeline.diffusion.times(nfe)[:-1]
    used = pipeline.tasks[task]
    shape = (len(batch), pipeline.layout.target, *SIZE)
    (first,) = inputs(pipeline, lambda: pipeline.sample(batch, task, nfe=1, members=1))
    start = first.reshape(shape)
    signs = torch.ones(shape[1])
    signs[list(used.mirrors)] = -1

    def turned(x: Tensor) -> Tensor:
        return x[..., list(range(SIZE[1] - 1, -1, -1))] * signs[:, None, None]

    total, weight = torch.zeros(shape), torch.zeros(shape)
    for call, t in enumerate(times):
        view = seen[call % len(seen)]
        coded = pipeline.code(view.batch(batch, 1), task)
        alpha, sigma = (float(level) for level in pipeline.diffusion.levels(t, t))
        if call == 0:
            x = start
        else:
            mean = total / weight
            x = alpha * mean + sigma * start
        x = turned(x) if view.mirror else x
        x = shifted(x, view.right, view.down)
        answer = pipeline.diffusion.answer(pipeline.net, coded, x, t.expand(len(x)))
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                y, z = row + view.down, column + view.right
                if 0 <= y < SIZE[0] and 0 <= z < SIZE[1]:
                    own = SIZE[1] - 1 - column if view.mirror else column
                    value = answer[..., y, z] * (signs if view.mirror else 1)
                    total[..., row, own] += value
                    weight[..., row, own] += 1
    return (total / weight)[:, : used.channels]


def inputs(pipeline: DensePipeline, run: Callable[[], Any]) -> list[Tensor]:
    seen: list[Tensor] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run()
    hook.remove()
    return seen
