"""What a run would be: data, shapes, parameters by group, FLOPs and memory, without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

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
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training.dense.rows import rows_per_picture

BYTES = 4  # weights, gradients, moments and the average are kept in float32


class Work(NamedTuple):
    """What a network of a run takes and gives."""

    codec: str
    build: Callable[[], nn.Module]
    example: tuple[Any, ...]  # of its input, without memory
    rows: float  # such inputs for each picture whose activations are kept at a time
    input: list[int]  # shape of a batch
    output: list[int]
    picture_flops: float | None = None  # forward, of a picture in training; None: of the example


def describe(config: RunConfig) -> dict[str, Any]:
    """Everything known before the first step. Raises UserError for a name or a size that does not
    fit."""
    tasks, training = build_tasks(config.tasks), config.training
    with torch.device("meta"):
        vae = config.model.name.startswith(VAE_PREFIX)
        net, work = (_vae if vae else _dense)(config, tasks)
    groups = parameter_groups(net)
    total = sum(groups.values())
    per_group = flops_by_group(work.build, work.example)
    forward = sum(per_group.values())
    world = max(training.processes, 1)
    auto = training.micro_batch == "auto"
    pictures = training.batch / world if auto else float(training.micro_batch)
    kept = int(activation_bytes(work.build, work.example) * (pictures * work.rows))
    copies = 5 if training.optimizer == "adamw" else 4.5  # weight, gradient, average, moments
    per_image = int(3 * (forward if work.picture_flops is None else work.picture_flops))
    return {
        "model": config.model.name,
        "codec": work.codec,
        "tasks": {name: {"channels": task.channels} for name, task in tasks.items()},
        "data": {name: _source(settings) for name, settings in config.data.items()},
        "input": work.input,
        "output": work.output,
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


def _dense(config: RunConfig, tasks: dict[str, Task]) -> tuple[nn.Module, Work]:
    """A backbone: its rows are the pictures of all tasks, at the largest size."""
    codec, training = described_codec(config.codec), config.training
    layout, net = Layout.of(tasks, codec), build_network(config, tasks, codec)
    sizes = dict(_sizes(config))
    for where, size in sizes.items():
        check_size(net, size, where, codec.downsample)
    height, width = (side // codec.downsample for side in max(sizes.values(), key=math.prod))
    costs = [task_cost(config.model, layout, task, (height, width)) for task in tasks.values()]
    return net, Work(
        codec.name,
        partial(layout.build, config.model),
        _example(layout, height, width, looks=getattr(net, "looks", False)),
        sum(task.splits for task in tasks.values()) * rows_per_picture(config),
        [training.batch, layout.target + layout.cond, height, width],
        [training.batch, layout.target, height, width],
        picture_flops(costs, rows_per_picture(config)),
    )


def _vae(config: RunConfig, tasks: dict[str, Task]) -> tuple[nn.Module, Work]:
    """A VAE: an image counts with the pictures of the task that has most."""
    from stepsight.models.vae import build_vae, check_sides  # diffusers: only when it is chosen

    net, training, sizes = build_vae(config.model.name), config.training, dict(_sizes(config))
    stride = 2 ** (len(net.config.block_out_channels) - 1)  # pyright: ignore[reportAttributeAccessIssue]
    for where, size in sizes.items():
        check_sides(size, stride, where)
    height, width = max(sizes.values(), key=math.prod)
    pictures = 1 + max(map(target_pictures, tasks.values()))
    example = torch.empty(pictures, 3, height, width, device="meta")
    shape = [training.batch * pictures, 3, height, width]
    return net, Work("pixels", partial(build_vae, config.model.name), (example,), 1, shape, shape)


def target_pictures(task: Task) -> int:
    """Pictures of three channels that a VAE makes of a task's target: see `models.vae`."""
    return task.splits * -(-task.channels // task.splits // 3)


def _example(layout: Layout, height: int, width: int, looks: bool) -> tuple[Any, ...]:
    """One row of input without memory, with what a backbone that `looks` sees anew."""

    def empty(channels: int, part: int = 1) -> torch.Tensor:
        return torch.empty(1, channels, height // part, width // part, device="meta")

    label = torch.zeros(1, dtype=torch.long, device="meta")
    features = empty(layout.features) if layout.features else None
    again = [(empty(layout.looked, 2), None)] if looks else []
    time = torch.empty(1, device="meta")
    return empty(layout.target), empty(layout.cond), time, label, features, *again


def lines(described: dict[str, Any]) -> list[str]:
    """The description for people."""
    flops, parameters = described["flops_by_group"], described["params_by_group"]
    groups = [(name, parameters.get(name, 0), flops.get(name, 0)) for name in parameters | flops]
    return [
        f"model     {described['model']}",
        *[f"  task    {name}: {x['channels']} channels" for name, x in described["tasks"].items()],
        *[f"  data    {name}: {about}" for name, about in described["data"].items()],
        f"shapes    input {described['input']} -> output {described['output']}",
        f"codec     {described['codec']}",
        f"params    {described['params_total']:,}, of which a sample passes "
        f"{described['params_active']:,}",
        f"  {'group':<16}{'parameters':>14}{'GFLOP':>12}",
        *[f"  {name:<16}{count:>14,}{cost / 1e9:>12.4f}" for name, count, cost in groups],
        f"flops     {described['flops_forward'] / 1e9:.3f} G forward per image, "
        f"{described['flops_train_per_image'] / 1e9:.3f} G training (with truth for all tasks), "
        f"{described['flops_train'] / 1e15:.3f} P the run",
        f"memory    {described['memory_bytes'] / 1e9:.2f} GB for weights, gradients, optimizer and "
        f"activations ({described['memory_bytes_activations'] / 1e9:.2f} GB) on one device",
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
