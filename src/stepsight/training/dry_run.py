"""What a run would be: data, shapes, parameters by group, FLOPs and memory, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from stepsight.coding import Layout, build_network
from stepsight.config import RunConfig
from stepsight.data.buckets import parse_size
from stepsight.data.config import ScenesSettings
from stepsight.evaluation.records import picture_flops, task_cost
from stepsight.models.codec import described_codec
from stepsight.models.config import VAE_PREFIX
from stepsight.models.factory import (
    activation_bytes,
    active_parameters,
    check_size,
    flops_by_group,
    parameter_groups,
)
from stepsight.tasks.table import build_tasks
from stepsight.training.rows import rows_a_picture

BYTES = 4  # weights, gradients, moments and the average are kept in float32


def describe(config: RunConfig) -> dict[str, Any]:
    """Everything known before the first step. Raises UserError for a size that does not fit."""
    if config.model.name.startswith(VAE_PREFIX):
        from stepsight.training.vae import describe_vae  # diffusers: only when a VAE is chosen

        return describe_vae(config)
    tasks, codec = build_tasks(config.tasks), described_codec(config.codec)
    layout = Layout.of(tasks, codec)
    with torch.device("meta"):
        net = build_network(config, tasks, codec)
    groups = parameter_groups(net)
    total = sum(groups.values())
    sizes = dict(_sizes(config))
    for where, size in sizes.items():
        check_size(net, size, where, codec.downsample)
    largest = max(sizes.values(), key=lambda size: size[0] * size[1])
    height, width = (side // codec.downsample for side in largest)
    example = _example(layout, height, width, looks=getattr(net, "looks", False))

    def factory() -> torch.nn.Module:
        return layout.build(config.model)

    per_group = flops_by_group(factory, example)
    forward = sum(per_group.values())
    training = config.training
    pictures = training.batch / (training.accumulate * max(training.processes, 1))
    rows = pictures * sum(task.passes for task in tasks.values()) * rows_a_picture(config)
    kept = int(activation_bytes(factory, example) * rows)
    copies = 5 if training.optimizer == "adamw" else 4.5  # weight, gradient, average, moments
    costs = [task_cost(config.model, layout, task, (height, width)) for task in tasks.values()]
    per_image = int(3 * picture_flops(costs, rows_a_picture(config)))
    return {
        "model": config.model.name,
        "codec": codec.name,
        "tasks": {name: {"channels": task.channels} for name, task in tasks.items()},
        "data": {name: _source(settings) for name, settings in config.data.items()},
        "input": [training.batch, layout.target + layout.cond, height, width],
        "output": [training.batch, layout.target, height, width],
        "params_total": total,
        "params_active": active_parameters(net),
        "params_by_group": groups,
        "flops_forward": forward,
        "flops_by_group": per_group,
        "flops_train_per_image": per_image,
        "flops_train": per_image * training.images,
        "memory_bytes": int(copies * BYTES * total) + kept,
        "memory_bytes_activations": kept,
    }


def _example(layout: Layout, height: int, width: int, looks: bool) -> tuple[Any, ...]:
    """One row of input without memory, with what a backbone that `looks` sees anew."""

    def empty(channels: int, part: int = 1) -> torch.Tensor:
        return torch.empty(1, channels, height // part, width // part, device="meta")

    label = torch.zeros(1, dtype=torch.long, device="meta")
    features = empty(layout.features) if layout.features else None
    again = [(empty(layout.looked, 2), None)] if looks else []
    time = torch.empty(1, device="meta")
    return empty(layout.target), empty(layout.cond), time, label, features, *again


def lines(found: dict[str, Any]) -> list[str]:
    """The description for people."""
    data = [f"  data    {name}: {about}" for name, about in found["data"].items()]
    flops = found["flops_by_group"]
    groups = [
        (name, found["params_by_group"].get(name, 0), flops.get(name, 0))
        for name in found["params_by_group"] | flops
    ]
    return [
        f"model     {found['model']}",
        *[
            f"  task    {name}: {about['channels']} channels"
            for name, about in found["tasks"].items()
        ],
        *data,
        f"shapes    input {found['input']} -> output {found['output']}",
        f"codec     {found['codec']}",
        f"params    {found['params_total']:,}, of which a sample passes {found['params_active']:,}",
        f"  {'group':<16}{'parameters':>14}{'GFLOP':>12}",
        *[f"  {name:<16}{count:>14,}{cost / 1e9:>12.4f}" for name, count, cost in groups],
        f"flops     {found['flops_forward'] / 1e9:.3f} G forward an image, "
        f"{found['flops_train_per_image'] / 1e9:.3f} G training (with truth for all tasks), "
        f"{found['flops_train'] / 1e15:.3f} P the run",
        f"memory    {found['memory_bytes'] / 1e9:.2f} GB for weights, gradients, optimizer and "
        f"activations ({found['memory_bytes_activations'] / 1e9:.2f} GB) on one device",
    ]


def _sizes(config: RunConfig) -> Iterator[tuple[str, tuple[int, int]]]:
    """Working sizes, with the names of the settings that say so."""
    for name, settings in config.data.items():
        yield f"data.{name}.size", tuple(settings.size)  # type: ignore[attr-defined]
        for text in getattr(settings, "buckets", ()):
            where = f"data.{name}.buckets"
            yield f"{where} {text}", parse_size(text, where)


def _source(settings: Any) -> str:
    height, width = settings.size
    if isinstance(settings, ScenesSettings):
        return f"{settings.count} scenes, level {settings.level}, {height}x{width}"
    return f"{settings.root or '.'} split {settings.split}, {height}x{width}"
