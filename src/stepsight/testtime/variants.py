"""The sampling variants that a sweep tries: all combinations of what was named.

NFE and members are a grid within each of them, and rules for merging members cost nothing more, so
that a variant is a checkpoint with a sampler, a spacing, a schedule, a start temperature, views and
a working size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, get_args

from stepsight.config import RunConfig
from stepsight.data.table import Source
from stepsight.diffusion.config import Sampler, SamplingSchedule, Spacing, Views, known
from stepsight.errors import UserError
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.records import Identity, starts_text
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.sweeps import temperature_text
from stepsight.tasks.merging import merge_rules

HOTTEST = 10.0  # start temperature; noise ten times as strong as any that was trained on


@dataclass(frozen=True)
class Candidate:
    """A checkpoint, and what it is scored on."""

    path: str  # as it was given
    pipeline: DensePipeline
    identity: Identity
    sources: Mapping[str, Source]  # by task
    label: str | None = None  # stands beside every score


@dataclass(frozen=True)
class Axes:
    """What is varied besides NFE and members; nothing named leaves it as the run has it."""

    samplers: Sequence[str] = ()
    spacings: Sequence[str] = ()
    schedules: Sequence[str] = ()
    sizes: Sequence[int] = ()  # the longer side at work
    merges: Sequence[str] = ()
    temperatures: Sequence[float] = ()  # of the start noise
    views: Sequence[str] = ()

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The arguments of `DensePipeline.sampling`, and "size"; None leaves it as it is."""
        axes = {"sampler": self.samplers, "spacing": self.spacings, "schedule": self.schedules}
        axes |= {"temperature": self.temperatures, "views": self.views, "size": self.sizes}
        for values in product(*(named or [None] for named in axes.values())):
            yield dict(zip(axes, values))


@dataclass(frozen=True)
class Variant:
    """A checkpoint with sampling options."""

    candidate: Candidate
    pipeline: DensePipeline  # the candidate's, with these options
    plan: ScoringPlan  # with the NFE that the sampler can spend, in this working size

    @property
    def columns(self) -> dict[str, Any]:
        """Its columns in tables."""
        settings = self.pipeline.diffusion.settings
        return {
            "sampler": settings.sampler,
            "spacing": settings.spacing,
            "schedule": settings.sampling_schedule,
            "checkpoint": self.candidate.path,
            "temperature": settings.temperature,
            "views": settings.views,
        }

    @property
    def name(self) -> str:
        """For the name of a file: no other variant of a sweep has it."""
        settings, size = self.pipeline.diffusion.settings, self.plan.size
        parts = [settings.sampler, settings.spacing, settings.sampling_schedule]
        parts += [self.pipeline.name[:6], f"T{temperature_text(settings.temperature)}"]
        return ".".join([*parts, settings.views, *([f"{size}px"] if size else [])])

    def label(self, merge: str = "") -> str:
        """The sampler, what else differs from the sampling of the run itself, and the merge rule
        where several were asked for."""
        settings, usual = self.pipeline.diffusion.settings, self.candidate.pipeline.config.diffusion
        names = [settings.spacing] if settings.spacing != usual.spacing else []
        names += [settings.sampling_schedule] if settings.sampling_schedule != "trained" else []
        names += [f"{self.plan.size}px"] if self.plan.size else []
        names += starts_text(settings) + ["raw"] * (self.pipeline.weights == "raw")
        return " ".join([settings.sampler, *names, *([merge] if merge else [])])


@dataclass
class Variants:
    """What a sweep tries, and what is left out of it for which reason."""

    kept: list[Variant] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, *notes: str) -> None:
        """Note reasons, each once."""
        self.left_out = list(dict.fromkeys([*self.left_out, *notes]))


def variants(candidates: Sequence[Candidate], plan: ScoringPlan, axes: Axes) -> Variants:
    """Every combination of `axes` for every candidate.

    An NFE that a sampler cannot spend is left out, and so is a combination that cannot be, provided
    that several were asked for. Raises UserError where there is but one, where nothing is left, and
    for names that are unknown.
    """
    _refuse_unknown(candidates, axes)
    combinations, chosen = list(axes.combinations()), Variants()
    for candidate, options in product(candidates, combinations):
        try:
            chosen.kept.append(_variant(candidate, plan, axes, options, chosen))
        except UserError as error:
            if len(combinations) == 1:
                raise
            named = (str(value) for value in options.values() if value is not None)
            chosen.left_out.append(f"{' '.join(named)} is left out: {error}")
    if not chosen.kept:
        raise UserError(f"nothing is left to sweep. {chosen.left_out[0]}")
    return chosen


def usual_variants(candidates: Sequence[Candidate], plan: ScoringPlan, axes: Axes) -> Variants:
    """The variants of `axes` over the starts and views of the first candidate's run (`starts_of`),
    where the axes name neither."""
    if axes.temperatures or axes.views:
        return variants(candidates, plan, axes)
    chosen = Variants()
    for temperature, views in starts_of(candidates[0].pipeline.config):
        start = replace(axes, temperatures=[temperature], views=[views])
        try:
            some = variants(candidates, plan, start)
        except UserError:
            if views == "none":
                raise
            continue  # no sampler here can have views
        chosen.kept += some.kept
        chosen.leave_out(*some.left_out)
    return chosen


def starts_of(config: RunConfig) -> list[tuple[float, str]]:
    """The temperatures and views that a run sweeps: views from zeros alone, as members from noise
    differ enough without. Pictures are generated from noise, and a model of one call has one."""
    settings = config.evaluation
    if config.diffusion.objective == "end_to_end":
        return [(0.0, "none")]
    generative = any(task.generative for task in config.tasks.values())
    return [
        (temperature, views)
        for temperature in settings.sweep_temperatures
        for views in (("none",) if temperature else settings.sweep_views)
        if temperature or not generative
    ]


def images_of(candidates: Sequence[Candidate], plan: ScoringPlan) -> int:
    """How many are scored, counted once per task and candidate."""
    return sum(plan.count(source) for row in candidates for source in row.sources.values())


def _variant(
    candidate: Candidate, plan: ScoringPlan, axes: Axes, options: Mapping[str, Any], noted: Variants
) -> Variant:
    size, sampling = options["size"], {k: v for k, v in options.items() if k != "size"}
    pipeline = candidate.pipeline.sampling(**sampling)
    nfe = _spendable(pipeline, plan.nfe, noted if len(axes.samplers) > 1 else None)
    pipeline.check_setting(1, max(nfe))
    plan = replace(
        plan,
        nfe=nfe,
        members=_distinct(pipeline, plan.members, noted),
        size=plan.size if size is None else size,
        sampler=pipeline.diffusion.settings.sampler,
        merges=axes.merges,
        label=candidate.label,
    )
    return Variant(candidate, pipeline, plan)


def _distinct(pipeline: DensePipeline, wanted: Sequence[int], noted: Variants) -> Sequence[int]:
    """The members worth drawing: one, where all would start from zeros and go alike. The others
    are noted in `noted`."""
    settings = pipeline.diffusion.settings
    if settings.temperature or not settings.deterministic:
        return wanted
    if max(wanted) > 1:
        noted.leave_out(
            "more than 1 member is left out at temperature 0: "
            f"with {settings.sampler} all are equal"
        )
    return (1,)


def _spendable(pipeline: DensePipeline, wanted: Sequence[int], noted: Variants | None) -> list[int]:
    """The NFE that the sampler can spend. The others are noted in `noted`; without it, or where
    all are others, UserError is raised for them."""
    spendable: list[int] = []
    for nfe in wanted:
        try:
            pipeline.diffusion.check_calls(nfe)
            spendable.append(nfe)
        except UserError as error:
            if noted is None or (nfe == wanted[-1] and not spendable):
                raise
            sampler = pipeline.diffusion.settings.sampler
            noted.leave_out(f"{nfe} NFE is left out of {sampler}: {error}")
    return spendable


def _refuse_unknown(candidates: Sequence[Candidate], axes: Axes) -> None:
    tasks = [row.pipeline.task(task) for row in candidates for task in row.sources]
    merges = dict.fromkeys(merge for task in tasks for merge in merge_rules(task))
    choices = {
        "sampler": (axes.samplers, get_args(Sampler)),
        "spacing": (axes.spacings, get_args(Spacing)),
        "schedule": (axes.schedules, get_args(SamplingSchedule)),
        "merge rule": (axes.merges, merges),
        "views": (axes.views, get_args(Views)),
    }
    for what, (names, offered) in choices.items():
        for name in names:
            known(what, name, offered)
    for temperature in axes.temperatures:
        if not 0 <= temperature <= HOTTEST:
            raise UserError(
                f"a start temperature of {temperature:g} cannot be: give one from 0, which starts "
                f"from zeros, to {HOTTEST:g}; 1 is that of the diffusion."
            )
