"""Scoring: every image of a source, at one or many test-time settings, against trivial predictors.

`score_source` is the one loop that validation, evaluation and the sweep share. It returns rows of
numbers, one an image; means are taken once, after the rows of all processes are together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source
from stepsight.pipeline import DensePipeline
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample

Rows = dict[str, Tensor]
Setting = tuple[int, int]  # NFE, members


@dataclass
class Scores:
    """Rows of every image scored, in the order of the source."""

    task: str
    source: str
    protocol: str
    keys: list[str] = field(default_factory=list)
    settings: dict[Setting, Rows] = field(default_factory=dict)
    baselines: dict[str, Rows] = field(default_factory=dict)
    ceiling: Rows = field(default_factory=dict)  # the truth of resized images, there and back
    seconds: dict[Setting, float] = field(default_factory=dict)  # an image
    working: tuple[int, int] = (0, 0)


@torch.inference_mode()
def score_source(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    *,
    protocol: str,
    indices: Sequence[int],
    nfe: Sequence[int],
    members: Sequence[int],
    sampler: str | None = None,
    seed: int = 0,
    rows: int = 64,
    advance: Callable[[int], None] = lambda images: None,
) -> Scores:
    """Score `indices` of `source` at every pair of `nfe` and `members`.

    Members are nested: the largest ensemble is sampled once a NFE and its prefixes are merged.
    With several processes each takes every n-th group of images; all return the same scores.
    """
    scores = Scores(task, source.name, protocol)
    mine = list(range(_rank(), len(indices), _world()))
    order: list[int] = []
    resized: list[int] = []
    for start in range(0, len(mine), rows):
        part = mine[start : start + rows]
        samples = source.samples([indices[one] for one in part])
        for group, places in _same_size(samples, part):
            batch = collate(group).to(pipeline.device)
            _score_batch(scores, pipeline, batch, nfe, members, sampler, seed, rows)
            order += places
            if scores.working != tuple(batch.image.shape[-2:]):
                _score_ceiling(scores, pipeline, group, batch)
                resized += places
        advance(len(part) * _world())
    return _gathered(scores, order, resized)


def _score_batch(
    scores: Scores,
    pipeline: DensePipeline,
    batch: Batch,
    nfe: Sequence[int],
    members: Sequence[int],
    sampler: str | None,
    seed: int,
    rows: int,
) -> None:
    task = pipeline.task(scores.task)
    scores.keys += batch.keys
    for calls in nfe:
        clock = _clock(pipeline.device)
        drawn = pipeline.sample(
            batch, task.name, nfe=calls, members=max(members), sampler=sampler, seed=seed, rows=rows
        )
        took = _clock(pipeline.device) - clock
        for count in members:
            prediction = pipeline.finish(task.merge(drawn[:count]), batch)
            setting = (calls, count)
            _extend(
                scores.settings.setdefault(setting, {}), _score(scores, task, prediction, batch)
            )
            spent = scores.seconds.get(setting, 0.0)
            scores.seconds[setting] = spent + took * count / max(members)
    for name, prediction in task.baselines(batch, pipeline.statistics.get(task.name)).items():
        _extend(scores.baselines.setdefault(name, {}), _score(scores, task, prediction, batch))
    scores.working = (int(drawn.shape[-2]), int(drawn.shape[-1]))


def _score_ceiling(
    scores: Scores, pipeline: DensePipeline, samples: list[Sample], batch: Batch
) -> None:
    """The truth at working size, encoded, decoded and brought back: the best within reach."""
    task = pipeline.task(scores.task)
    small = collate([resize_sample(sample, scores.working) for sample in samples])
    truth = task.decode(task.encode(small.to(pipeline.device)).x)
    _extend(scores.ceiling, _score(scores, task, pipeline.finish(truth, batch), batch))


def _score(scores: Scores, task: Task, prediction: Prediction, batch: Batch) -> Rows:
    return {k: v.cpu() for k, v in task.score(prediction, batch, scores.protocol).items()}


def _same_size(
    samples: Sequence[Sample], places: Sequence[int]
) -> list[tuple[list[Sample], list[int]]]:
    """Samples that can share a batch, with their places."""
    groups: dict[tuple[int, ...], tuple[list[Sample], list[int]]] = {}
    for sample, place in zip(samples, places):
        members = groups.setdefault(tuple(sample.image.shape), ([], []))
        members[0].append(sample)
        members[1].append(place)
    return list(groups.values())


def _extend(rows: Rows, more: Rows) -> None:
    for name, value in more.items():
        rows[name] = torch.cat([rows[name], value]) if name in rows else value


def _gathered(scores: Scores, order: list[int], resized: list[int]) -> Scores:
    """All processes' rows together, in the order of the images; each image counts once."""
    parts = _all_gathered((order, resized, scores))
    sort = torch.tensor([place for part, _, _ in parts for place in part]).argsort()
    every = [part for _, _, part in parts if part.keys]
    assert every, "no image was scored"
    merged = Scores(scores.task, scores.source, scores.protocol, working=every[0].working)
    keys = [key for part in every for key in part.keys]
    merged.keys = [keys[i] for i in sort]
    for field_name in ("settings", "baselines"):
        tables = [getattr(part, field_name) for part in every]
        for name in tables[0]:
            getattr(merged, field_name)[name] = _joined([t[name] for t in tables], sort)
    if ceilings := [part.ceiling for part in every if part.ceiling]:
        places = torch.tensor([place for _, part, _ in parts for place in part])
        merged.ceiling = _joined(ceilings, places.argsort())
    for setting in every[0].seconds:
        total = sum(part.seconds[setting] for part in every)
        merged.seconds[setting] = total / len(keys)
    return merged


def _all_gathered(mine: Any) -> list[Any]:
    """What every process holds, by rank."""
    if _world() == 1:
        return [mine]
    parts: list[Any] = [None] * _world()
    dist.all_gather_object(parts, mine)
    return parts


def _joined(tables: list[Rows], sort: Tensor) -> Rows:
    return {name: torch.cat([table[name] for table in tables])[sort] for name in tables[0]}


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
