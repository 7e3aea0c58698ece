"""From a plan to jobs: which tasks are scored, at which settings and under which protocols.

A job is one task to score: who predicts, on which images, under which protocols. Models and
predictions of other programs come the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stepsight.config import RunConfig
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source
from stepsight.evaluation.evaluator import rank
from stepsight.evaluation.journal import Journal
from stepsight.evaluation.predictions.dump import Saving
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.results import Made
from stepsight.metrics import protocol as protocols
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline, merge_rules
from stepsight.tasks.config import DepthSettings, TaskSettings


@dataclass(frozen=True)
class Job:
    """One task to score."""

    predictor: Predictor
    source: Source
    protocols: Sequence[Protocol]
    indices: Sequence[int]
    split: str | None = None
    label: str | None = None  # said beside every score
    variant: str = ""  # of a sweep

    def journal(self, folder: Path) -> Journal:
        """Where its rows are kept until the results are written."""
        ends = [self.source[i].key for i in {self.indices[0], self.indices[-1]}]
        data = [self.source.name, repr(getattr(self.source, "settings", "")), *sorted(ends)]
        subject = dict(self.predictor.subject) | {
            "protocols": [rule.id for rule in self.protocols],
            "data": [*data, len(self.source), len(self.indices)],
        }
        name = ".".join(filter(None, (self.predictor.name, self.variant)))
        return Journal(folder / "journal", name, subject, rank())

    def made(self, rule: Protocol) -> Made:
        """How its scores under one of its protocols came about."""
        published: Mapping[str, int] = getattr(self.source, "published", {})
        return Made(
            sampler=self.predictor.sampler,
            checkpoint=self.predictor.digest,
            split=self.split,
            published=published.get(self.split or ""),
            available=len(self.source),
            options={**_options(self.source), **self.predictor.options},
            label="; ".join(filter(None, (self.label, self.predictor.remark(rule)))) or None,
            temperature=self.predictor.temperature,
            views=self.predictor.views,
            calibration=self.predictor.calibration,
        )


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


def _options(source: Source) -> dict[str, Any]:
    """The settings by which a source offers another truth or other images than it usually does."""
    settings = getattr(source, "settings", None)
    if not isinstance(settings, SourceSettings):
        return {}
    common = {one.name for one in fields(FileSettings)} | {"cache"}
    own = {one.name: one.default for one in fields(settings) if one.name not in common}
    values = {name: getattr(settings, name) for name in own}
    return {name: value for name, value in values.items() if value != own[name]}
