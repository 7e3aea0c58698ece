"""What is scored on: the sources of a run, and which of them holds the truth that a task needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from stepsight.config import RunConfig
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source, open_source
from stepsight.errors import UserError
from stepsight.evaluation.jobs import protocols_of
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline


def open_sources(
    config: RunConfig, quantities: frozenset[str], split: Literal["train", "eval", "tune"]
) -> dict[str, Source]:
    """Every source of a run, at its split for training, for evaluation, or for what is chosen and
    fitted after training: files have none of their own for that, and lend that of evaluation."""
    found = {}
    for name, settings in config.data.items():
        own: str = split
        if isinstance(settings, FileSettings):
            own = settings.split if split == "train" else settings.eval_split
        found[name] = open_source(settings, own, quantities, config.data_root or None)
    return found


def overlap(trained: RunConfig, scored: Iterable[SourceSettings]) -> str | None:
    """What to say beside scores on the very frames that were trained on."""
    same = []
    for one in scored:
        old = trained.data.get(one.name)
        if isinstance(one, FileSettings) and isinstance(old, FileSettings):
            if "all" in (old.split, one.eval_split) or old.split == one.eval_split:
                same.append(one.name)
    return f"training frames (overfit): {', '.join(same)}" if same else None


def pick_sources(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    tasks: Sequence[str] | None,
    chosen: Mapping[str, Sequence[Protocol]] | None = None,
) -> dict[str, Source]:
    """For each task (all, or those asked for) the first source that holds the truth which its
    protocols (`chosen`, by task) need."""
    found = {}
    for task in tasks or pipeline.tasks:
        needs = truth_needed(pipeline, task, chosen or {})
        fitting = [source for source in sources.values() if needs <= source.quantities]
        if fitting:
            found[task] = fitting[0]
        elif tasks:
            raise UserError(
                f"task {task} needs {' and '.join(sorted(needs))}; {', '.join(sources)} has none. "
                f"Choose another source with --data.name, or another task or protocol."
            )
    if not found:
        raise UserError(
            f"{', '.join(sources)} holds no truth for {', '.join(pipeline.tasks)}. "
            f"Choose another source with --data.name."
        )
    return found


def truth_needed(
    pipeline: DensePipeline, task: str, chosen: Mapping[str, Sequence[Protocol]]
) -> frozenset[str]:
    """The quantities that the protocols of a task are scored against."""
    own = pipeline.task(task).needs
    return frozenset(rule.needs or own for rule in protocols_of(pipeline, task, chosen))
