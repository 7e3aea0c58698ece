"""What programs ask of this room: a whole evaluation, a sweep, and the sources to score on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from stepsight.config import RunConfig
from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source, open_source
from stepsight.errors import UserError
from stepsight.evaluation.assess import assess, score_jobs
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.ledger import Identity, forward_flops, identity_of, record_lines
from stepsight.evaluation.plan import Plan, jobs_of, protocol_of, protocols_of
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.sweep import sweep_variants
from stepsight.evaluation.variants import STARTS, Axes, Candidate, Variants, starts_text, variants
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline import DensePipeline
from stepsight.scaling.records import append
from stepsight.tasks.config import ImageSettings

__all__ = [
    "Axes",
    "Candidate",
    "Identity",
    "Plan",
    "evaluate",
    "forward_flops",
    "identity_of",
    "images_of",
    "jobs_of",
    "open_sources",
    "overlap",
    "pick_sources",
    "protocol_of",
    "protocols_of",
    "score_tasks",
    "starts_of",
    "sweep",
    "sweep_variants",
    "truth_needed",
    "usual_variants",
    "variants",
]


def score_tasks(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Scores]:
    """Scores of every task on its source, under its first protocol, without a journal."""
    jobs = jobs_of(pipeline, sources, plan)
    return [found[0] for found in score_jobs(jobs, [None] * len(jobs), advance)]


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
        models = {job.predictor.name: job.predictor for job in jobs}
        lines = [
            record_lines([one], _pipeline_of(models[one.task]), _way(models[one.task]), identity)
            for one in every
        ]
        append(records, chain.from_iterable(lines))

    return assess(folder, jobs, advance, done)


def _pipeline_of(predictor: Predictor) -> DensePipeline:
    """As the task was sampled."""
    assert isinstance(predictor, Model)
    return predictor.pipeline


def _way(predictor: Predictor) -> str:
    """The sampler, its starts and views as sweeps tell them, and what else is not as the run itself
    samples and merges."""
    told = starts_text(_pipeline_of(predictor).diffusion.settings)
    other = {key: x for key, x in predictor.options.items() if key not in STARTS}
    return " ".join([predictor.sampler, *told, *map(str, other.values())])


def sweep(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: Plan,
    identity: Identity,
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> list[dict[str, Any]]:
    """Sweep NFE x members of a run's checkpoint, whose report will show it (`sweep_variants`): one
    member from zeros, with and without views, and members from noise."""
    path = "" if pipeline.home is None else str(pipeline.home)
    candidate = Candidate(path, pipeline, identity, sources, plan.label)
    tried = usual_variants([candidate], plan, Axes(samplers=[plan.sampler]))
    return sweep_variants(folder, tried.found, records, advance, page=False)


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


def open_sources(
    config: RunConfig, quantities: frozenset[str], split: Literal["train", "eval", "tune"]
) -> dict[str, Source]:
    """Every source of a run, at its split for training, for evaluation, or for what is chosen and
    fitted after training: files have none of their own for that, and lend that of evaluation."""
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
