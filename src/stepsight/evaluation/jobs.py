"""From a plan to jobs: which tasks are scored, at which settings and under which protocols.

A job is a task to score: who predicts, on which images, under which protocols. Models and
predictions of other programs come the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stepsight.data.bad import BadItems
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source
from stepsight.distributed import rank
from stepsight.evaluation.evaluator import Scores, score
from stepsight.evaluation.predictions.dump import Saving
from stepsight.evaluation.predictors import Model, Predictor, Provenance
from stepsight.evaluation.scoring.items import key_of
from stepsight.evaluation.scoring.journal import Journal
from stepsight.metrics import protocol as protocol_table
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.config import TaskSettings
from stepsight.tasks.merging import merge_rules


@dataclass(frozen=True)
class ScoringJob:
    """A task to score."""

    predictor: Predictor
    source: Source
    protocols: Sequence[Protocol]
    indices: Sequence[int]
    split: str | None = None
    label: str | None = None  # stands beside every score
    variant: str = ""  # of a sweep
    bad: BadItems = field(default_factory=BadItems)  # what to do about items that cannot be scored

    def scores(
        self, advance: Callable[[int], None], journal: Journal | None = None
    ) -> list[Scores]:
        """One per protocol and merge rule."""
        data = self.source, self.protocols, self.indices
        return score(self.predictor, *data, journal=journal, bad=self.bad, advance=advance)

    def journal(self, folder: Path) -> Journal:
        """Where its rows are kept until the results are written."""
        ends = [key_of(self.source, i) for i in {self.indices[0], self.indices[-1]}]
        data = [self.source.name, repr(getattr(self.source, "settings", "")), *sorted(ends)]
        subject = dict(self.predictor.subject) | {
            "protocols": [protocol.id for protocol in self.protocols],
            "data": [*data, len(self.source), len(self.indices)],
        }
        name = ".".join(filter(None, (self.predictor.name, self.variant)))
        return Journal(folder / "journal", name, subject, rank())

    def provenance(self, protocol: Protocol) -> Provenance:
        """How its scores under a protocol came about."""
        published: Mapping[str, int] = getattr(self.source, "published", {})
        notes = filter(None, (self.label, self.predictor.remark(protocol)))
        provenance = self.predictor.provenance
        return replace(
            provenance,
            split=self.split,
            published=published.get(self.split or ""),
            available=len(self.source),
            options=_data_options(self.source) | dict(provenance.options),
            label="; ".join(notes) or None,
        )


@dataclass(frozen=True)
class ScoringPlan:
    """What to score and at which settings."""

    nfe: Sequence[int]
    members: Sequence[int]
    images: int  # of each source; 0 = all
    sampler: str
    seed: int
    chunk_size: int
    label: str | None = None  # stands beside every score, e.g. that the frames were trained on
    protocols: Mapping[str, Sequence[Protocol]] = field(default_factory=dict)  # by task
    split: str | None = None  # of the sources; None: as in the run
    save: bool = False  # keep the predictions
    size: int | None = None  # the longer side at work; None: as the protocol says
    merges: Sequence[str] = ()  # each task takes those that it knows; (): the usual rule
    usual: bool = False  # each task as the run chose for it, but for what is given here:
    temperature: float | None = None
    views: str | None = None
    bad: BadItems = field(default_factory=BadItems)  # what to do about images that cannot be read

    def count(self, source: Source) -> int:
        """How many images of a source are scored."""
        return min(self.images or len(source), len(source))


def jobs_of(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: ScoringPlan,
    keep: bool = False,
    save_to: Path | None = None,
    variant: str = "",
) -> list[ScoringJob]:
    """One job per task. keep: score the uncertainty of ensembles too. save_to: keep predictions.
    variant: tells the jobs of several plans apart that are written to the same folder."""
    jobs = []
    for task, source in sources.items():
        sampled, nfe, members = _as_planned(pipeline, task, plan)
        settings = (sampled, task, nfe, members, plan.sampler, plan.seed, plan.chunk_size)
        merges = [merge for merge in plan.merges if merge in merge_rules(pipeline.task(task))]
        model = Model(*settings, keep, merges=merges, size=plan.size)
        if save_to is not None:
            model = Saving(*settings, keep, size=plan.size, folder=save_to / task)
        data = pipeline.config.data.get(source.name)
        split = data.eval_split if isinstance(data, FileSettings) else None
        data = source, protocols_of(pipeline, task, plan.protocols), range(plan.count(source))
        said = plan.split or split, plan.label, variant
        jobs.append(ScoringJob(model, *data, *said, bad=plan.bad))
    return jobs


def _as_planned(
    pipeline: DensePipeline, task: str, plan: ScoringPlan
) -> tuple[DensePipeline, Sequence[int], Sequence[int]]:
    """The pipeline as a task is to be sampled, its NFE and its members."""
    if not plan.usual:
        return pipeline, plan.nfe, plan.members
    nfe, members = (next(iter(values), None) for values in (plan.nfe, plan.members))
    usual = pipeline.setting(task, nfe, members, plan.temperature, plan.views)
    pipeline = pipeline.sampling(sampler=plan.sampler).with_setting(usual)
    return pipeline.sampling(views=plan.views), [usual.nfe], [usual.members]


def protocols_of(
    pipeline: DensePipeline, task: str, chosen: Mapping[str, Sequence[Protocol]]
) -> Sequence[Protocol]:
    """Those chosen for the task, else what its settings ask for."""
    return chosen.get(task) or [protocol_of(pipeline.config.tasks[task])]


def protocol_of(settings: TaskSettings) -> Protocol:
    """The protocol a task is scored under: what its settings ask for, else its default."""
    wanted = settings.protocol
    return protocol_table.get(wanted) if wanted else protocol_table.default_for(settings.name)


def _data_options(source: Source) -> dict[str, Any]:
    """The settings by which a source offers another truth or other images than it usually does."""
    settings = getattr(source, "settings", None)
    if not isinstance(settings, SourceSettings):
        return {}
    common = {row.name for row in fields(FileSettings)} | {"cache"}
    usual = {row.name: row.default for row in fields(settings) if row.name not in common}
    values = {name: getattr(settings, name) for name in usual}
    return {name: value for name, value in values.items() if value != usual[name]}
