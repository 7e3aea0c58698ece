"""The trivial predictors of a source, without any model: what a trained one has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source
from stepsight.evaluation.results import metrics_of
from stepsight.tasks.base import Task

STATISTICS_IMAGES = 1024  # training samples that the learned predictors are made of
CHUNK = 64


def statistics(tasks: Mapping[str, Task], source: Source) -> dict[str, Tensor]:
    """For each task, sums "s h w" over the first training samples, at working size."""
    totals: dict[str, Tensor] = {}
    for start in range(0, min(STATISTICS_IMAGES, len(source)), CHUNK):
        picks = range(start, min(start + CHUNK, STATISTICS_IMAGES, len(source)))
        batch = collate([resize_sample(one, source.size) for one in source.samples(picks)])
        for name, task in tasks.items():
            part = task.statistics(batch)
            totals[name] = totals[name] + part if name in totals else part
    return totals


def trivial_metrics(
    task: Task, train: Source | None, held: Source, protocol: str, images: int
) -> dict[str, dict[str, float]]:
    """Metrics of every trivial predictor of `task` over the first `images` of `held`; without a
    `train`, of those that learn nothing."""
    learned = statistics({task.name: task}, train)[task.name] if train else None
    rows: dict[str, dict[str, Tensor]] = {}
    for start in range(0, min(images, len(held)), CHUNK):
        picks = range(start, min(start + CHUNK, images, len(held)))
        batch = collate([resize_sample(one, held.size) for one in held.samples(picks)])
        for name, prediction in task.baselines(batch, learned).items():
            for key, value in task.score(prediction, batch, protocol).items():
                own = rows.setdefault(name, {})
                own[key] = torch.cat([own[key], value]) if key in own else value
    return {name: metrics_of(own, protocol) for name, own in rows.items()}
