"""What an evaluation tells the ledger of the scaling analysis (`scaling.records`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch

from stepsight.checkpoint import Checkpoint
from stepsight.data.resize import Size
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import interval
from stepsight.measures import headline, measure
from stepsight.metrics import protocol as protocols
from stepsight.models.factory import active_parameters, count_flops
from stepsight.pipeline import DensePipeline
from stepsight.scaling.flops import inference_flops
from stepsight.scaling.records import ScalingRecord


@dataclass(frozen=True)
class Identity:
    """What a record needs to know of the run that made the weights."""

    run: str
    config: str
    revision: str
    seed: int
    model: str
    parameters: int
    active: int  # parameters that one sample passes
    training_flops: float
    images_seen: int
    losses: Mapping[str, float]  # validation loss by task
    loss_bins: Mapping[str, Sequence[float]] = field(default_factory=dict)  # by task
    tokens: float | None = None
    samples: Mapping[str, int] = field(default_factory=dict)  # distinct training ones by task
    parent: str = ""
    inherited_flops: float | None = None


def identity_of(saved: Checkpoint, pipeline: DensePipeline) -> Identity:
    """Whose weights a checkpoint holds."""
    config = saved.config
    return Identity(
        run=saved.meta["run"],
        config=config.fingerprint(),
        revision=saved.meta["revision"],
        seed=config.training.seed,
        model=config.model.name,
        parameters=sum(p.numel() for p in pipeline.net.parameters()),
        active=active_parameters(pipeline.net),
        training_flops=saved.meta["training_flops"],
        images_seen=saved.meta["images_seen"],
        losses=saved.meta["losses"],
        loss_bins=saved.meta.get("loss_bins", {}),
        tokens=saved.meta["images_seen"] * _tokens(pipeline),
        samples=saved.meta.get("samples", {}),
        parent=saved.meta.get("parent", ""),
        inherited_flops=saved.meta.get("inherited_flops", 0.0),
    )


def _tokens(pipeline: DensePipeline) -> float:
    """Cells of the backbone's coarsest grid an image, the mean over tasks."""
    stride = int(pipeline.net.stride) * pipeline.codec.downsample  # type: ignore[arg-type]
    counts = [(height // stride) * (width // stride) for height, width in pipeline.sizes.values()]
    return sum(counts) / len(counts)


def record_lines(
    every: Sequence[Scores], pipeline: DensePipeline, sampler: str, identity: Identity
) -> list[ScalingRecord]:
    """One record a task, setting and headline metric. `sampler` also says what else is unusual
    about the way of sampling, so that records of different ways are not taken for the same."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [line for one in every for line in _lines_of(one, pipeline, sampler, identity, now)]


def _lines_of(
    scores: Scores, pipeline: DensePipeline, sampler: str, identity: Identity, now: str
) -> Iterator[ScalingRecord]:
    rule, forward = protocols.get(scores.protocol), answer_flops(pipeline, scores)
    task = scores.task
    trivial = [metrics_of(rows, rule.name) for rows in scores.baselines.values()]
    for (nfe, members), rows in scores.settings.items():
        metrics = metrics_of(rows, rule.name)
        for metric in headline(task, metrics, rule.metrics):
            found = interval(rows, metric, rule)
            best = max if measure(metric).higher_is_better else min
            rivals = [own[metric] for own in trivial if metric in own]
            yield ScalingRecord(
                run=identity.run,
                config=identity.config,
                revision=identity.revision,
                seed=identity.seed,
                model=identity.model,
                params_total=identity.parameters,
                params_active=identity.active,
                training_flops=identity.training_flops,
                images_seen=identity.images_seen,
                task=task,
                dataset=scores.source,
                protocol=rule.id,
                sampler=sampler,
                nfe=nfe,
                members=members,
                inference_flops=inference_flops(forward, nfe, members),
                metric=metric,
                value=metrics[metric],
                images=len(scores.keys),
                lower_is_better=not measure(metric).higher_is_better,
                lo=found.lo,
                hi=found.hi,
                seconds=scores.seconds[nfe, members],
                loss=identity.losses.get(task),
                loss_bins=tuple(identity.loss_bins.get(task, ())),
                trivial=best(rivals, default=None),
                tokens=identity.tokens,
                samples=identity.samples.get(task),
                size="x".join(map(str, scores.working)),
                parent=identity.parent,
                inherited_flops=identity.inherited_flops,
                time=now,
            )


def answer_flops(pipeline: DensePipeline, scores: Scores) -> float:
    """FLOPs of one call for one image, at the sizes the images were worked at: their mean."""
    counts = scores.sizes or {pipeline.sizes[scores.task]: 1}
    total = sum(n * forward_flops(pipeline, scores.task, size) for size, n in counts.items())
    return total / sum(counts.values())


def forward_flops(pipeline: DensePipeline, task: str, size: Size | None = None) -> float:
    """FLOPs of one answer of the backbone over all its passes, at a working size (by default that
    of training)."""
    chosen, layout = pipeline.task(task), pipeline.layout
    sides = size or pipeline.sizes[task]
    height, width = (side // pipeline.codec.downsample for side in sides)
    features = None
    if chosen.feature_channels:  # their grid does not matter: they are pooled
        features = torch.zeros(1, chosen.feature_channels, height, width)
    example = (
        torch.zeros(1, layout.target, height, width),
        torch.zeros(1, layout.cond, height, width),
        torch.zeros(1),
        torch.zeros(1, dtype=torch.long),
        features,
    )
    return chosen.passes * count_flops(lambda: layout.build(pipeline.config.model), example)
