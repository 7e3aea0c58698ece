"""What a run would be: data, shapes, parameters by group, FLOPs and memory, without running it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from stepsight.config import RunConfig
from stepsight.data.config import ScenesSettings
from stepsight.models.factory import active_parameters, flops_by_group, parameter_groups
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings
from stepsight.training.planning.memory import memory_of
from stepsight.training.planning.workload import Workload, workload_of


def describe(config: RunConfig, work: Workload | None = None) -> dict[str, Any]:
    """Everything known before the first step. work: `workload_of` the run, if it is at hand.

    Raises UserError for a name or a size that does not fit."""
    tasks, training = build_tasks(config.tasks), config.training
    work = work or workload_of(config, tasks)
    groups, per_group = parameter_groups(work.net), dict(_flops(work))
    forward, world = sum(per_group.values()), max(training.processes, 1)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    memory = memory_of(config, tasks, world, pictures_at_a_time(training, world), kind, work)
    per_image = int(3 * (forward if work.picture_flops is None else work.picture_flops))
    return {
        "model": config.model.name,
        "codec": work.codec,
        "tasks": {name: {"channels": task.channels} for name, task in tasks.items()},
        "data": {name: _source(settings) for name, settings in config.data.items()},
        "input": work.input,
        "output": work.output,
        "params_total": sum(groups.values()),
        "params_active": active_parameters(work.net),
        "params_by_group": groups,
        "flops_forward": forward,
        "flops_by_group": per_group,
        "flops_train_per_image": per_image,
        "flops_train": per_image * training.images,
        "memory_bytes": memory.total,
        "memory_bytes_activations": memory.activations + memory.again,
    }


@lru_cache(maxsize=16)
def _flops(work: Workload) -> dict[str, int]:
    return flops_by_group(work.build, work.example)


def pictures_at_a_time(training: TrainingSettings, world: int) -> int:
    """Of a process: its micro-batch, where "auto" is all that it has of a batch."""
    mine = max(training.batch // world, 1)
    return mine if training.micro_batch == "auto" else min(int(training.micro_batch), mine)


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
    ]


def _source(settings: Any) -> str:
    height, width = settings.size
    if isinstance(settings, ScenesSettings):
        return f"{settings.count} scenes, level {settings.level}, {height}x{width}"
    return f"{settings.root or '.'} split {settings.split}, {height}x{width}"
