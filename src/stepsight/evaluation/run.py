"""An evaluation as a whole: score every task, write results, sweep, pictures and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source, open_source
from stepsight.errors import UserError
from stepsight.evaluation.assess import Job, assess, score_jobs
from stepsight.evaluation.dump import Saving
from stepsight.evaluation.evaluator import Scores, rank
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.results import metrics_of, result, write_json
from stepsight.evaluation.statistics import interval
from stepsight.evaluation.sweep import write_sweep
from stepsight.measures import main_metric, measure
from stepsight.metrics import protocol as protocols
from stepsight.metrics.protocol import Protocol
from stepsight.models.factory import active_parameters, count_flops
from stepsight.pipeline import DensePipeline
from stepsight.scaling.flops import inference_flops
from stepsight.scaling.records import ScalingRecord, append
from stepsight.tasks.config import DepthSettings, TaskSettings


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


@dataclass(frozen=True)
class Plan:
    """What to score and at which settings."""

    nfe: Sequence[int]
    members: Sequence[int]
    images: int  # of each source; 0 = all
    sampler: str
    seed: int
    rows: int
    label: str | None = None  # said beside every score, e.g. that the frames were trained on
    protocols: Mapping[str, Sequence[Protocol]] = field(default_factory=dict)  # by task
    split: str | None = None  # of the sources; None: that of the run's own
    save: bool = False  # keep the predictions


def score_tasks(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Scores]:
    """Scores of every task on its source, under its first protocol, without a journal."""
    jobs = jobs_of(pipeline, sources, plan)
    return [found[0] for found in score_jobs(jobs, [None] * len(jobs), advance)]


def jobs_of(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    keep: bool = False,
    save_to: Path | None = None,
) -> list[Job]:
    """A job a task. keep: score the uncertainty of ensembles too. save_to: keep predictions."""
    jobs = []
    for task, source in sources.items():
        settings = (pipeline, task, plan.nfe, plan.members, plan.sampler, plan.seed, plan.rows)
        model = Model(*settings, keep)
        if save_to is not None:
            model = Saving(*settings, keep, folder=save_to / task)
        jobs.append(
            Job(
                model,
                source,
                protocols_of(pipeline, task, plan.protocols),
                range(min(plan.images or len(source), len(source))),
                plan.split or _own_split(pipeline.config, source),
                plan.label,
            )
        )
    return jobs


def protocols_of(
    pipeline: DensePipeline, task: str, chosen: Mapping[str, Sequence[Protocol]]
) -> Sequence[Protocol]:
    """Those chosen for the task, else the one that its settings ask for."""
    return chosen.get(task) or [protocol_of(pipeline.config.tasks[task])]


def _own_split(config: RunConfig, source: Source) -> str | None:
    settings = config.data.get(source.name)
    return settings.eval_split if isinstance(settings, FileSettings) else None


def protocol_of(settings: TaskSettings) -> Protocol:
    """The protocol a task is scored under: metric depth is not aligned."""
    if isinstance(settings, DepthSettings) and settings.range == "metric":
        return protocols.get("depth-metric")
    if isinstance(settings, DepthSettings) and settings.space != "log":
        return protocols.get("depth-affine")
    return protocols.default_for(settings.name)


def evaluate(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    identity: Identity,
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> list[dict[str, Any]]:
    """Write results, pictures and a page to `folder` (see `assess`); append the records.

    All processes take part; the first one writes. Returns the results.
    """
    save_to = folder / "predictions" if plan.save else None
    jobs = jobs_of(pipeline, sources, plan, keep=True, save_to=save_to)

    def done(every: Sequence[Scores]) -> None:
        append(records, record_lines(every, pipeline, plan, identity))

    return assess(folder, jobs, advance, done)


def sweep(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    identity: Identity,
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> list[dict[str, Any]]:
    """Score the grid NFE x members and write it to `folder` (see `sweep.write_sweep`)."""
    jobs = jobs_of(pipeline, sources, plan)
    journals = [job.journal(folder) for job in jobs]
    every = [found[0] for found in score_jobs(jobs, journals, advance)]
    if rank() != 0:
        return []
    flops = {task: forward_flops(pipeline, task) for task in sources}
    append(records, record_lines(every, pipeline, plan, identity))
    claims = write_sweep(folder, every, pipeline, plan.sampler, flops)
    setting = (max(plan.nfe), max(plan.members))
    made = [job.made(job.protocols[0]) for job in jobs]
    results = [result(scores, setting, how) for scores, how in zip(every, made)]
    write_json(folder / "results.json", results)
    for journal in journals:
        journal.remove()
    return claims


def record_lines(
    every: Sequence[Scores], pipeline: DensePipeline, plan: Plan, identity: Identity
) -> list[ScalingRecord]:
    """One record a task, setting and main metric."""
    lines = []
    for scores in every:
        rule = protocols.get(scores.protocol)
        forward = forward_flops(pipeline, scores.task)
        for (nfe, members), rows in scores.settings.items():
            metrics = metrics_of(rows, rule.name)
            metric = main_metric(scores.task, metrics, rule.metrics)
            assert metric is not None, scores.task
            found = interval(rows, metric, rule)
            lines.append(
                ScalingRecord(
                    run=identity.run,
                    config=identity.config,
                    revision=identity.revision,
                    seed=identity.seed,
                    model=identity.model,
                    params_total=identity.parameters,
                    params_active=identity.active,
                    training_flops=identity.training_flops,
                    images_seen=identity.images_seen,
                    task=scores.task,
                    dataset=scores.source,
                    protocol=rule.id,
                    sampler=plan.sampler,
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
                    loss=identity.losses.get(scores.task),
                )
            )
    return lines


def forward_flops(pipeline: DensePipeline, task: str) -> float:
    """FLOPs of one answer of the backbone at the working size of `task`, over all its passes."""
    chosen, layout = pipeline.task(task), pipeline.layout
    height, width = (side // pipeline.codec.downsample for side in pipeline.sizes[task])
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
    )


def open_sources(
    config: RunConfig, quantities: frozenset[str], split: Literal["train", "eval"]
) -> dict[str, Source]:
    """Every source of a run, at its split for training or for evaluation."""
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
