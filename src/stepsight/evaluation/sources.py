"""What is scored on: the sources of a run, and which of them holds the truth that a task needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from stepsight.averages import HEAVY, Weights, start_share
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source, having, open_source
from stepsight.errors import UserError
from stepsight.evaluation.jobs import protocols_of
from stepsight.evaluation.kept import Kept
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline


def open_sources(
    config: RunConfig, quantities: frozenset[str], split: Literal["train", "eval", "tune"]
) -> dict[str, Source]:
    """Every source of a run, at its split for training, for evaluation, or for what is chosen and
    fitted after training: files have none of their own for that, and lend that of evaluation. What
    is not for training is asked for again and again, and read once (`Kept`)."""
    opened: dict[str, Source] = {}
    for name, settings in config.data.items():
        part: str = split
        if isinstance(settings, FileSettings):
            part = settings.split if split == "train" else settings.eval_split
        source = open_source(settings, part, quantities, config.data_root or None)
        opened[name] = source if split == "train" else Kept(source)
    return opened


def overlap(trained: RunConfig, scored: Iterable[SourceSettings]) -> str | None:
    """What to say beside scores on the very frames that were trained on."""
    same = []
    for new in scored:
        old = trained.data.get(new.name)
        if isinstance(new, FileSettings) and isinstance(old, FileSettings):
            if "all" in (old.split, new.eval_split) or old.split == new.eval_split:
                same.append(new.name)
    return f"training frames (overfit): {', '.join(same)}" if same else None


def remark(saved: Checkpoint, scored: Iterable[SourceSettings], weights: Weights = "ema") -> str:
    """What to say beside the scores of a checkpoint: on what it was trained (`overlap`), and how
    much of its average are still the weights it began with. "" where all is as it should be."""
    settings, warm = saved.config.training, bool(saved.meta.get("ema_warmup"))
    updates = saved.meta["images_seen"] // settings.batch  # 0: weights from elsewhere
    share = start_share(settings.ema, updates, warm) if updates and weights == "ema" else 0.0
    begun = f"{100 * share:.1f} % of the averaged weights are still those that the run began with"
    return "; ".join(filter(None, (overlap(saved.config, scored), begun * (share > HEAVY))))


def pick_sources(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    tasks: Sequence[str] | None,
    chosen: Mapping[str, Sequence[Protocol]] | None = None,
) -> dict[str, Source]:
    """For each task (all, or those asked for) the first source that holds the truth which its
    protocols (`chosen`, by task) need, and of it the samples that have it."""
    picked = {}
    for task in tasks or pipeline.tasks:
        needs = truth_needed(pipeline, task, chosen or {})
        fitting = (having(source, needs) for source in sources.values())
        if first := next((part for part in fitting if part is not None), None):
            picked[task] = first
        elif tasks:
            raise UserError(
                f"task {task} needs {' and '.join(sorted(needs))}; {', '.join(sources)} has none. "
                f"Choose another source with --data.name, or another task or protocol."
            )
    if not picked:
        raise UserError(
            f"{', '.join(sources)} holds no truth for {', '.join(pipeline.tasks)}. "
            f"Choose another source with --data.name."
        )
    return picked


def truth_needed(
    pipeline: DensePipeline, task: str, chosen: Mapping[str, Sequence[Protocol]]
) -> frozenset[str]:
    """The quantities that the protocols of a task are scored against."""
    usual = (pipeline.task(task).target_field,)
    return frozenset().union(*(row.truths(usual) for row in protocols_of(pipeline, task, chosen)))
