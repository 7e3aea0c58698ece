"""What the network of a run takes and gives, from its settings alone: shapes, rows, FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from stepsight.coding import Layout, build_network
from stepsight.config import RunConfig
from stepsight.data.buckets import parse_size
from stepsight.evaluation.records import Flops, picture_flops, task_cost
from stepsight.models.codec import described_codec
from stepsight.models.config import VAE_PREFIX
from stepsight.models.factory import check_size, repeated_blocks
from stepsight.tasks.base import Task
from stepsight.training.dense.rows import counts, rows_per_picture


@dataclass(frozen=True, eq=False)
class Workload:
    """A network on the meta device, and what a picture of a batch is to it. Two are equal where
    the networks and their inputs are: what those take is counted once (`functools.lru_cache`)."""

    net: nn.Module
    codec: str
    build: partial[Any]
    example: tuple[Any, ...]  # of its input, without memory
    kept_rows: float  # such inputs for each picture whose activations are kept at a time
    input: list[int]  # shape of a batch
    output: list[int]
    costs: Mapping[str, Flops]  # of an image, by task; of a VAE none
    picture_flops: float | None  # forward, of a picture in training; None: of the example
    size: tuple[int, int]  # the largest that is worked at, in pixels

    @property
    def _key(self) -> tuple[Any, ...]:
        shapes = [getattr(one, "shape", None) for one in tree_leaves(self.example)]
        return self.build.func, self.build.args, *shapes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts that sharding gathers and recomputation reruns."""
        return repeated_blocks(self.net)


def workload_of(config: RunConfig, tasks: Mapping[str, Task]) -> Workload:
    """Raises UserError for a name or a size that does not fit."""
    vae = config.model.name.startswith(VAE_PREFIX)
    with torch.device("meta"):
        return (_vae if vae else _dense)(config, tasks)


def _dense(config: RunConfig, tasks: Mapping[str, Task]) -> Workload:
    """A backbone: its rows are the pictures of all tasks, at the largest size."""
    codec, training = described_codec(config.codec), config.training
    layout, net = Layout.of(tasks, codec), build_network(config, tasks, codec)
    sizes = dict(_sizes(config))
    for where, size in sizes.items():
        check_size(net, size, where, codec.downsample)
    largest = max(sizes.values(), key=math.prod)
    height, width = (side // codec.downsample for side in largest)
    costs = {
        name: task_cost(config.model, layout, task, (height, width)) for name, task in tasks.items()
    }
    own = config.diffusion.objective == "end_to_end"
    walks = 0.0 if own else counts(training.rows, training.batch)[1] / training.batch
    return Workload(
        net,
        codec.name,
        partial(Layout.build, layout, config.model),
        _example(layout, height, width, looks=getattr(net, "looks", False)),
        sum(task.splits for task in tasks.values()) * (1 + walks),
        [training.batch, layout.target + layout.cond, height, width],
        [training.batch, layout.target, height, width],
        costs,
        picture_flops([*costs.values()], rows_per_picture(config)),
        largest,
    )


def _vae(config: RunConfig, tasks: Mapping[str, Task]) -> Workload:
    """A VAE: an image counts with the pictures of the task that has most."""
    from stepsight.models.config import check_sides
    from stepsight.models.vae import build_vae  # diffusers: only when it is chosen

    net, training, sizes = build_vae(config.model.name), config.training, dict(_sizes(config))
    stride = 2 ** (len(net.config.block_out_channels) - 1)  # pyright: ignore[reportAttributeAccessIssue]
    for where, size in sizes.items():
        check_sides(size, stride, where)
    height, width = max(sizes.values(), key=math.prod)
    pictures = 1 + max(map(target_pictures, tasks.values()))
    example = (torch.empty(pictures, 3, height, width, device="meta"),)
    shape = [training.batch * pictures, 3, height, width]
    build = partial(build_vae, config.model.name)
    return Workload(net, "pixels", build, example, 1.0, shape, shape, {}, None, (height, width))


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


def _sizes(config: RunConfig) -> Iterator[tuple[str, tuple[int, int]]]:
    """Working sizes, with the names of the settings that say so."""
    for name, settings in config.data.items():
        yield f"data.{name}.size", tuple(settings.size)  # type: ignore[attr-defined]
        for text in getattr(settings, "buckets", ()):
            where = f"data.{name}.buckets"
            yield f"{where} {text}", parse_size(text, where)
