"""From a plan to jobs: which tasks are scored, at which settings and under which protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepsight.config import RunConfig
from stepsight.data.config import FileSettings
from stepsight.data.table import Source
from stepsight.evaluation.assess import Job
from stepsight.evaluation.dump import Saving
from stepsight.evaluation.predictors import Model
from stepsight.metrics import protocol as protocols
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline import DensePipeline, merge_rules
from stepsight.tasks.config import DepthSettings, TaskSettings


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
    size: int | None = None  # the longer side at work; None: as the protocol says
    merges: Sequence[str] = ()  # each task by those that it knows; () is its own rule
    usual: bool = False  # each task as the run chose for it, but for what is given here:
    temperature: float | None = None
    views: str | None = None


def jobs_of(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    keep: bool = False,
    save_to: Path | None = None,
    variant: str = "",
) -> list[Job]:
    """A job a task. keep: score the uncertainty of ensembles too. save_to: keep predictions.
    variant: tells the jobs of several plans apart that are written to one folder."""
    jobs = []
    for task, source in sources.items():
        own, nfe, members = _dialled(pipeline, task, plan)
        settings = (own, task, nfe, members, plan.sampler, plan.seed, plan.rows)
        rules = [rule for rule in plan.merges if rule in merge_rules(pipeline.task(task))]
        model = Model(*settings, keep, merges=rules, size=plan.size)
        if save_to is not None:
            model = Saving(*settings, keep, size=plan.size, folder=save_to / task)
        jobs.append(
            Job(
                model,
                source,
                protocols_of(pipeline, task, plan.protocols),
                range(min(plan.images or len(source), len(source))),
                plan.split or _own_split(pipeline.config, source),
                plan.label,
                variant,
            )
        )
    return jobs


def _dialled(
    pipeline: DensePipeline, task: str, plan: Plan
) -> tuple[DensePipeline, Sequence[int], Sequence[int]]:
    """The pipeline as a task is to be sampled, its NFE and its members."""
    if not plan.usual:
        return pipeline, plan.nfe, plan.members
    nfe, members = (next(iter(values), None) for values in (plan.nfe, plan.members))
    usual = pipeline.setting(task, nfe, members, plan.temperature, plan.views)
    own = pipeline.sampling(sampler=plan.sampler).set_to(usual)
    own = own if plan.views is None else own.sampling(views=plan.views)
    return own, [usual.nfe], [usual.members]


def protocols_of(
    pipeline: DensePipeline, task: str, chosen: Mapping[str, Sequence[Protocol]]
) -> Sequence[Protocol]:
    """Those chosen for the task, else the one that its settings ask for."""
    return chosen.get(task) or [protocol_of(pipeline.config.tasks[task])]


def protocol_of(settings: TaskSettings) -> Protocol:
    """The protocol a task is scored under: metric depth is not aligned."""
    if isinstance(settings, DepthSettings) and settings.range == "metric":
        return protocols.get("depth-metric")
    if isinstance(settings, DepthSettings) and settings.space != "log":
        return protocols.get("depth-affine")
    return protocols.default_for(settings.name)


def _own_split(config: RunConfig, source: Source) -> str | None:
    settings = config.data.get(source.name)
    return settings.eval_split if isinstance(settings, FileSettings) else None
