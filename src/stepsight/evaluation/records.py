"""What an evaluation adds to the records of the scaling analysis (`scaling.records`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from stepsight.checkpoint import Checkpoint
from stepsight.coding import Layout
from stepsight.data.resize import Size
from stepsight.diffusion.config import DiffusionSettings
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import interval
from stepsight.measures import headline, measure
from stepsight.metrics import protocol as protocols
from stepsight.models.config import ModelSettings
from stepsight.models.factory import active_parameters
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.views import VIEWS
from stepsight.scaling.records import ScalingRecord
from stepsight.scaling.sampling.sweeps import temperature_text
from stepsight.tasks.base import Task

STARTS = ("temperature", "views", "starts", "guidance")
BY_TASK = ("losses", "loss_bins", "samples")  # in an identity; a record has the rest of it as well


@dataclass(frozen=True)
class Identity:
    """What a record needs to know of the run that made the weights."""

    run: str
    config: str
    revision: str
    seed: int
    model: str
    params_total: int
    params_active: int  # that one sample passes
    training_flops: float
    images_seen: int
    losses: Mapping[str, float]  # validation loss by task
    loss_bins: Mapping[str, Sequence[float]] = field(default_factory=dict)  # by task
    tokens: float | None = None  # images x cells of the backbone's coarsest grid, mean over tasks
    samples: Mapping[str, int] = field(default_factory=dict)  # distinct training ones by task
    parent: str = ""
    inherited_flops: float | None = None


def identity_of(saved: Checkpoint, pipeline: DensePipeline) -> Identity:
    """Whose weights a checkpoint holds. Its losses are those of the averaged weights, and of no
    others."""
    config, averaged = saved.config, pipeline.weights == "ema"
    stride = getattr(pipeline.net, "coarsest", pipeline.net.stride) * pipeline.codec.downsample  # type: ignore[operator]
    cells = [(height // stride) * (width // stride) for height, width in pipeline.sizes.values()]
    return Identity(
        run=saved.meta["run"],
        config=config.fingerprint(),
        revision=saved.meta["revision"],
        seed=config.training.seed,
        model=config.model.name,
        params_total=sum(p.numel() for p in pipeline.net.parameters()),
        params_active=active_parameters(pipeline.net),
        training_flops=saved.meta["training_flops"],
        images_seen=saved.meta["images_seen"],
        losses=saved.meta["losses"] if averaged else {},
        loss_bins=saved.meta.get("loss_bins", {}) if averaged else {},
        tokens=saved.meta["images_seen"] * (sum(cells) / len(cells)),
        samples=saved.meta.get("samples", {}),
        parent=saved.meta.get("parent", ""),
        inherited_flops=saved.meta.get("inherited_flops", 0.0),
    )


def records_of(
    scores: Scores, pipeline: DensePipeline, sampler: str, identity: Identity
) -> Iterator[ScalingRecord]:
    """One record per setting and headline metric. `sampler` also says what else is unusual about
    the way of sampling, so that records of different ways are not taken for the same."""
    protocol, task = protocols.get(scores.protocol), scores.task
    trivial = [metrics_of(rows, protocol.name) for rows in scores.baselines.values()]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for (nfe, members), rows in scores.settings.items():
        metrics = metrics_of(rows, protocol.name)
        for metric in headline(task, metrics, protocol.metrics):
            ends = interval(rows, metric, protocol)
            best = max if measure(metric).higher_is_better else min
            rivals = [baseline[metric] for baseline in trivial if metric in baseline]
            yield ScalingRecord(
                **{name: x for name, x in vars(identity).items() if name not in BY_TASK},
                task=task,
                dataset=scores.source,
                protocol=pipeline.profile.mark(protocol.id),
                sampler=sampler,
                nfe=nfe,
                members=members,
                inference_flops=answer_flops(pipeline, scores, nfe, members),
                metric=metric,
                value=metrics[metric],
                images=len(scores.keys),
                lower_is_better=not measure(metric).higher_is_better,
                lo=ends.lo,
                hi=ends.hi,
                seconds=scores.seconds[nfe, members],
                loss=identity.losses.get(task),
                loss_bins=tuple(identity.loss_bins.get(task, ())),
                trivial=best(rivals, default=None),
                samples=identity.samples.get(task),
                size="x".join(map(str, scores.working)),
                time=now,
            )


def answer_flops(pipeline: DensePipeline, scores: Scores, nfe: int, members: int) -> float:
    """FLOPs of an estimate for one image, at the sizes the images were worked at: their mean.

    Its views are encoded once each, for all calls of all members. A guided call is one call (NFE)
    of two passes: with the label, and without it.
    """
    counts = scores.sizes or {pipeline.sizes[scores.task]: 1}
    views = min(nfe, len(VIEWS[pipeline.diffusion.settings.views]))
    total, passes = 0.0, 1 if pipeline.diffusion.settings.guidance == 1 else 2
    for size, images in counts.items():
        cost = cost_of(pipeline, scores.task, size)
        total += passes * images * (views * cost.encode + nfe * members * cost.call)
    return total / sum(counts.values())


class Flops(NamedTuple):
    """FLOPs of the backbone for one image and task, over all its passes."""

    encode: float  # once per image and view
    call: float  # each model call
    shared: float = 0.0  # of `encode`, what other tasks and passes of the same image need as well


def picture_flops(costs: Sequence[Flops], rows: float) -> float:
    """FLOPs of the forward passes that a picture takes in training: `rows` calls for each of its
    tasks, whose `costs` these are. What they share of the encoding is done once a picture."""
    shared = min(cost.shared for cost in costs)
    return shared + sum(cost.encode - cost.shared + rows * cost.call for cost in costs)


def cost_of(pipeline: DensePipeline, task: str, size: Size | None = None) -> Flops:
    """What an image costs at a working size (by default that of training)."""
    chosen, (high, wide) = pipeline.task(task), size or pipeline.sizes[task]
    cell = pipeline.codec.downsample
    cells = -(-high // cell), -(-wide // cell)  # profiles pad
    return task_cost(pipeline.config.model, pipeline.layout, chosen, cells)


def task_cost(settings: ModelSettings, layout: Layout, task: Task, cells: Size) -> Flops:
    """What an image costs a backbone on a grid of so many working cells."""
    cost = _cost(settings, layout, task.feature_channels, task.look_channels > 0, cells)
    return Flops(*(task.splits * part for part in cost))


@lru_cache(maxsize=256)
def _cost(
    settings: ModelSettings, layout: Layout, features: int, looks: bool, cells: Size
) -> Flops:
    """The cost of one pass, counted by torch on the meta device."""
    with torch.device("meta"), torch.no_grad():
        net: Any = layout.build(settings)
        cond, label = torch.zeros(1, layout.cond, *cells), torch.zeros(1, dtype=torch.long)
        more = torch.zeros(1, features, *cells) if features else None
        again = torch.zeros(1, layout.looked, cells[0] // 2, cells[1] // 2)
        seen = {"looked": (again, None)} if looks and getattr(net, "looks", False) else {}
        picture = torch.zeros(1, 3, *cells)  # at any size: a network squares it
        told = {"picture": picture} if getattr(net, "sees_picture", False) else {}
        with FlopCounterMode(display=False) as encoding:
            encoded = net.encode(cond, label, more, **told)
        with FlopCounterMode(display=False) as calling:
            net(torch.zeros(1, layout.target, *cells), encoded, torch.zeros(1), label, **seen)
        with FlopCounterMode(display=False) as reading:
            if read := getattr(net, "read", None):
                read(cond)
    return Flops(*(part.get_total_flops() for part in (encoding, calling, reading)))


def forward_flops(pipeline: DensePipeline, task: str, size: Size | None = None) -> float:
    """FLOPs of a first call of the backbone over all its passes: encoding, and one call."""
    cost = cost_of(pipeline, task, size)
    return cost.encode + cost.call


def starts_text(used: DiffusionSettings) -> list[str]:
    """How samples start and look, as far as it is not as a sampler does by itself."""
    names = [f"T {temperature_text(used.temperature)}"] if used.temperature != 1 else []
    names += [f"{used.views} views"] if used.views != "none" else []
    names += [f"guidance {used.guidance:g}"] if used.guidance != 1 else []
    return names + ([used.starts] if used.starts != "independent" else [])
