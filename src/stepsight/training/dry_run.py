"""What a run would be: data, shapes, parameters by group, FLOPs and memory, without running it."""

from __future__ import annotations

from typing import Any

import torch

from stepsight.config import RunConfig
from stepsight.data.config import ScenesSettings
from stepsight.models.build import activation_bytes, check_size, count_flops, parameter_groups
from stepsight.pipeline import MAX_CONDITION_IMAGES, build_network
from stepsight.tasks.table import build_tasks

BYTES = 4  # weights, gradients, moments and the average are kept in float32


def describe(config: RunConfig) -> dict[str, Any]:
    """Everything known before the first step. Raises UserError for a size that does not fit."""
    tasks = build_tasks(config.tasks)
    with torch.device("meta"):
        net = build_network(config, tasks)
    groups = parameter_groups(net)
    total = sum(groups.values())
    sizes = {name: tuple(settings.size) for name, settings in config.data.items()}  # type: ignore[attr-defined]
    for name, size in sizes.items():
        check_size(net, size, f"data.{name}.size")  # type: ignore[arg-type]
    height, width = max(sizes.values(), key=lambda size: size[0] * size[1])
    channels = max(task.channels for task in tasks.values())
    features = [task for task in tasks.values() if task.feature_channels]

    def example(rows: int) -> tuple[torch.Tensor | None, ...]:
        matching = None
        if features:
            stride = features[0].stride  # type: ignore[attr-defined]
            grid = (height // stride, width // stride)
            matching = torch.empty(rows, features[0].feature_channels, *grid, device="meta")
        shapes = [(rows, channels, height, width), (rows, 3 * MAX_CONDITION_IMAGES, height, width)]
        x, cond = (torch.empty(shape, device="meta") for shape in shapes)
        label = torch.zeros(rows, dtype=torch.long, device="meta")
        return x, cond, torch.empty(rows, device="meta"), label, matching

    def factory() -> torch.nn.Module:
        return build_network(config, tasks)

    forward = count_flops(factory, example(1))
    training = config.training
    kept = activation_bytes(factory, example(1)) * training.batch // training.accumulate
    copies = 5 if training.optimizer == "adamw" else 4.5  # weight, gradient, average, moments
    return {
        "model": config.model.name,
        "tasks": {name: {"channels": task.channels} for name, task in tasks.items()},
        "data": {name: _source(settings) for name, settings in config.data.items()},
        "input": [training.batch, channels + 3 * MAX_CONDITION_IMAGES, height, width],
        "output": [training.batch, channels, height, width],
        "params_total": total,
        "params_active": total,
        "params_by_group": groups,
        "flops_forward": forward,
        "flops_train_per_image": 3 * forward,
        "flops_train": 3 * forward * training.images,
        "memory_bytes": int(copies * BYTES * total) + kept,
        "memory_bytes_activations": kept,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The description for people."""
    data = [f"  data    {name}: {about}" for name, about in found["data"].items()]
    groups = found["params_by_group"].items()
    return [
        f"model     {found['model']}",
        *[
            f"  task    {name}: {about['channels']} channels"
            for name, about in found["tasks"].items()
        ],
        *data,
        f"shapes    input {found['input']} -> output {found['output']}",
        f"params    {found['params_total']:,}",
        *[f"  {name:<16}{count:>14,}" for name, count in groups],
        f"flops     {found['flops_forward'] / 1e9:.3f} G forward an image, "
        f"{found['flops_train_per_image'] / 1e9:.3f} G training, "
        f"{found['flops_train'] / 1e15:.3f} P the run",
        f"memory    {found['memory_bytes'] / 1e9:.2f} GB for weights, gradients, optimizer and "
        f"activations ({found['memory_bytes_activations'] / 1e9:.2f} GB) on one device",
    ]


def _source(settings: Any) -> str:
    height, width = settings.size
    if isinstance(settings, ScenesSettings):
        return f"{settings.count} scenes, level {settings.level}, {height}x{width}"
    return f"{settings.root or '.'} split {settings.split}, {height}x{width}"
