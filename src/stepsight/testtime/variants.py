"""The ways of sampling that a sweep tries: all combinations of what was named.

NFE and members are a grid within each of them, and rules for merging members cost nothing more, so
that a variant is a checkpoint with a sampler, a spacing, a schedule, a start temperature, views and
a working size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, get_args

from stepsight.config import RunConfig
from stepsight.data.table import Source
from stepsight.diffusion.config import (
    Sampler,
    SamplingSchedule,
    Spacing,
    Views,
    known,
)
from stepsight.errors import UserError
from stepsight.evaluation.jobs import Plan
from stepsight.evaluation.records import Identity, starts_text
from stepsight.pipeline.dense import DensePipeline, merge_rules
from stepsight.scaling.sampling.sweeps import temperature_text
from stepsight.tasks.config import ImageSettings

HOTTEST = 10.0  # start temperature; noise ten times as strong as any that was trained on


@dataclass(frozen=True)
class Candidate:
    """A checkpoint, and what it is scored on."""

    path: str  # as it was given
    pipeline: DensePipeline
    identity: Identity
    sources: Mapping[str, Source]  # by task
    label: str | None = None  # said beside every score


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


@dataclass(frozen=True)
class Variant:
    """One way of sampling."""

    candidate: Candidate
    pipeline: DensePipeline  # the candidate's, sampling this way
    plan: Plan  # with the NFE that the sampler can spend, in this working size

    @property
    def columns(self) -> dict[str, Any]:
        """How tables call it."""
        used = self.pipeline.diffusion.settings
        return {
            "sampler": used.sampler,
            "spacing": used.spacing,
            "schedule": used.sampling_schedule,
            "checkpoint": self.candidate.path,
            "temperature": used.temperature,
            "views": used.views,
        }

    @property
    def name(self) -> str:
        """For the name of a file: no other variant of a sweep has it."""
        used, size = self.pipeline.diffusion.settings, self.plan.size
        parts = [used.sampler, used.spacing, used.sampling_schedule, self.pipeline.name[:6]]
        parts += [f"T{temperature_text(used.temperature)}", used.views]
        return ".".join([*parts, *([f"{size}px"] if size else [])])

    def label(self, merge: str = "") -> str:
        """The sampler, what else differs from the way the run itself samples, and the merge rule
        where several were asked for."""
        used, usual = self.pipeline.diffusion.settings, self.candidate.pipeline.config.diffusion
        names = [used.spacing] if used.spacing != usual.spacing else []
        names += [used.sampling_schedule] if used.sampling_schedule != "trained" else []
        names += [f"{self.plan.size}px"] if self.plan.size else []
        names += starts_text(used)
        return " ".join([used.sampler, *names, *([merge] if merge else [])])


@dataclass
class Variants:
    """What a sweep tries, and what is left out of it for which reason."""

    found: list[Variant] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def variants(candidates: Sequence[Candidate], plan: Plan, axes: Axes) -> Variants:
    """Every combination of `axes` for every candidate.

    An NFE that a sampler cannot spend is left out, and so is a combination that cannot be, provided
    that several were asked for. Raises UserError where there is but one, where nothing is left, and
    for names that are unknown.
    """
    _refuse_unknown(candidates, axes)
    ways = list(
        product(
            axes.samplers or [None],
            axes.spacings or [None],
            axes.schedules or [None],
            axes.temperatures or [None],
            axes.views or [None],
            axes.sizes or [plan.size],
        )
    )
    both = Variants()
    for candidate, way in product(candidates, ways):
        try:
            both.found.append(_variant(candidate, plan, axes, *way, both.left_out))
        except UserError as error:
            if len(ways) == 1:
                raise
            both.left_out.append(f"{_said(way)} is left out: {error}")
    if not both.found:
        raise UserError(f"nothing is left to sweep. {both.left_out[0]}")
    return both


def usual_variants(candidates: Sequence[Candidate], plan: Plan, axes: Axes) -> Variants:
    """The variants of `axes` over the starts and views of the first candidate's run (`starts_of`),
    where the axes name neither."""
    if axes.temperatures or axes.views:
        return variants(candidates, plan, axes)
    both = Variants()
    for temperature, views in starts_of(candidates[0].pipeline.config):
        own = replace(axes, temperatures=[temperature], views=[views])
        try:
            one = variants(candidates, plan, own)
        except UserError:
            if views == "none":
                raise
            continue  # no sampler here can have views
        both.found += one.found
        both.left_out += [note for note in one.left_out if note not in both.left_out]
    return both


def starts_of(config: RunConfig) -> list[tuple[float, str]]:
    """The temperatures and views that a run sweeps: views from zeros alone, as members from noise
    differ enough without. Pictures are generated from noise, and a model of one call has one."""
    settings = config.evaluation
    if config.diffusion.objective == "end_to_end":
        return [(0.0, "none")]
    ways = [
        (temperature, views)
        for temperature in settings.sweep_temperatures
        for views in (("none",) if temperature else settings.sweep_views)
    ]
    return [way for way in ways if way[0]] if ImageSettings.name in config.tasks else ways


def images_of(candidates: Sequence[Candidate], plan: Plan) -> int:
    """How many are scored, counted once a task and candidate."""
    counts = [len(source) for one in candidates for source in one.sources.values()]
    return sum(min(plan.images or count, count) for count in counts)


def _variant(
    candidate: Candidate,
    plan: Plan,
    axes: Axes,
    sampler: str | None,
    spacing: str | None,
    schedule: str | None,
    temperature: float | None,
    views: str | None,
    size: int | None,
    left_out: list[str],
) -> Variant:
    pipeline = candidate.pipeline.sampling(
        sampler=sampler, spacing=spacing, schedule=schedule, temperature=temperature, views=views
    )
    nfe = _spendable(pipeline, plan.nfe, left_out if len(axes.samplers) > 1 else None)
    pipeline.check_setting(1, max(nfe))
    own = replace(
        plan,
        nfe=nfe,
        members=_distinct(pipeline, plan.members, left_out),
        size=size,
        sampler=pipeline.diffusion.settings.sampler,
        merges=axes.merges,
        label=candidate.label,
    )
    return Variant(candidate, pipeline, own)


def _distinct(pipeline: DensePipeline, wanted: Sequence[int], left_out: list[str]) -> Sequence[int]:
    """The members worth drawing: one, where all would start from zeros and walk alike. The others
    are noted in `left_out`."""
    used = pipeline.diffusion.settings
    if used.temperature or not used.deterministic:
        return wanted
    if max(wanted) > 1:
        note = f"more than 1 member is left out at temperature 0: with {used.sampler} all are equal"
        left_out += [note] if note not in left_out else []
    return (1,)


def _spendable(
    pipeline: DensePipeline, wanted: Sequence[int], left_out: list[str] | None
) -> list[int]:
    """The NFE that the sampler can spend. The others are noted in `left_out`; without one, or where
    all are others, UserError is raised for them."""
    found, refused = [], None
    for nfe in wanted:
        try:
            pipeline.diffusion.check_calls(nfe)
            found.append(nfe)
        except UserError as error:
            refused = error
            if left_out is None:
                raise
            note = f"{nfe} NFE is left out of {pipeline.diffusion.settings.sampler}: {error}"
            left_out += [note] if note not in left_out else []
    if not found:
        assert refused is not None, "a plan names at least one NFE"
        raise refused
    return found


def _refuse_unknown(candidates: Sequence[Candidate], axes: Axes) -> None:
    scored = [one.pipeline.task(task) for one in candidates for task in one.sources]
    rules = dict.fromkeys(rule for task in scored for rule in merge_rules(task))
    choices = {
        "sampler": (axes.samplers, get_args(Sampler)),
        "spacing": (axes.spacings, get_args(Spacing)),
        "schedule": (axes.schedules, get_args(SamplingSchedule)),
        "merge rule": (axes.merges, rules),
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


def _said(way: Iterable[object]) -> str:
    return " ".join(str(part) for part in way if part is not None)
