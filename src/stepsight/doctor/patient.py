"""What is examined: a configuration, and a small run that is like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError
from stepsight.models.config import VAE_PREFIX, CodecSettings, DiTSize, SplitSize, parse
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training.objective import objective_of
from stepsight.training.planning.workload import Workload, workload_of
from stepsight.training.spec import RunSpec

STEPS, BATCH = 6, 8  # of the small run
SMALL: dict[str, Any] = {  # settings of it that no configuration changes
    "images": STEPS * BATCH,
    "batch": BATCH,
    "micro_batch": "auto",
    "processes": 1,
    "warmup": 2 * BATCH,
    "precision": "float32",
    "latents": "",
    "log_every": BATCH,
    "validate_every": 0,
    "first_validation": 0,
    "checkpoint_every": 2 * BATCH,
    "evaluate": False,
    "tracker": "none",
    "workers": 0,
    "validation_images": 4,
}


@dataclass
class Patient:
    """A configuration, where its runs go, and how many processes a run would have here."""

    config: RunConfig
    folder: Path  # of the small runs
    runs: Path  # where real ones would be written
    processes: int = 2
    say: Callable[[str], None] = field(default=lambda line: None)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        return build_tasks(self.config.tasks)

    @cached_property
    def workload(self) -> Workload:
        return workload_of(self.config, self.tasks)

    @cached_property
    def small(self) -> RunConfig:
        """A run of seconds, of the same kind of model, tasks and training on procedural scenes; of
        the default model and tasks where scenes have no truth for these."""
        config = shrunk(self.config)
        try:
            spec = RunSpec.of(config, self.folder)
            objective_of(config).check(spec)
        except UserError:
            return shrunk(from_dict({}))
        return config


def shrunk(config: RunConfig) -> RunConfig:
    """The smallest model of the same kind, on scenes."""
    scenes = {"level": "easy", "size": [32, 32], "count": 64, "eval_count": 8}
    return replace(
        config,
        model=replace(config.model, name=small_name(config.model.name), unet=""),
        codec=CodecSettings(),
        tasks={name: type(task)() for name, task in config.tasks.items()},  # which score anything
        data=from_dict({"data": {"scenes": scenes}}).data,
        training=replace(config.training, **SMALL),
    )


def small_name(name: str) -> str:
    """The name of a small model with the parts that a model has."""
    if name.startswith(VAE_PREFIX):
        return name
    found = parse(name)
    if isinstance(found, DiTSize):
        return "DiT-64x2/4" + (f"-4E{min(found.active, 4)}A" if found.experts else "")
    return "split-8" if isinstance(found, SplitSize) else "unet-tiny"
