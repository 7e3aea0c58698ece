"""The most memory that a few steps took, beside what the dry run planned for them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from stepsight import distributed
from stepsight.tasks.table import build_tasks
from stepsight.training.learner import Learner
from stepsight.training.planning.dry_run import pictures_at_a_time
from stepsight.training.planning.memory import Memory, memory_of


def planned(learner: Learner) -> Memory:
    """Of this device, as `train.py --dry-run` has it, without validation."""
    config, world = learner.objective.config, distributed.world()
    tasks = build_tasks(config.tasks)
    pictures = pictures_at_a_time(config.training, world)
    memory = memory_of(config, tasks, world, pictures, learner.device.type)
    return replace(memory, validation=0)


def held(learner: Learner, memory: Memory) -> int:
    """Bytes that stay from step to step in the memory of a CPU."""
    tensors = (tensor for every in learner.parts().values() for tensor in every)
    buckets = memory.gradients if memory.pinned else 0  # DDP's, which no gradient is without
    return sum(tensor.nbytes for tensor in tensors) + memory.codec + buckets


def allocated(trace: Path) -> int:
    """Bytes of a CPU that were allocated at most beyond those at the beginning of a chrome trace.

    Of tensors: what libraries keep for themselves goes past torch's allocator.
    """
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    found = [e for e in events if e["name"] == "[memory]" and e["args"]["Device Type"] == 0]
    changes = (event["args"]["Bytes"] for event in sorted(found, key=lambda one: one["ts"]))
    return max(accumulate(changes), default=0)
