"""What a run finds out about its own model before it is scored: how each task is best answered, and
how far its ensembles' uncertainty has to be stretched.

Both are measured on scenes that were neither trained on nor are scored (`tune`); of files, which
have no such split, on the validation images, and the checkpoint says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from stepsight.data.bad import BadItems
from stepsight.data.config import ScenesSettings
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.calibration import fit_calibration
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.jobs import protocols_of
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.sources import open_sources, pick_sources
from stepsight.measures import main_metric, measure
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.dense import DensePipeline

ENOUGH = 0.002  # a cheaper setting is taken where its error is at most so much larger
MEMBERS = 8  # of the ensembles whose uncertainty is calibrated


def tuned(pipeline: DensePipeline, bad: BadItems | None = None) -> dict[str, dict[str, Any]]:
    """`sampling` and `calibration` of a checkpoint, by task. All processes take part. bad: what to
    do about images that cannot be read; None: stop."""
    config, settings = pipeline.config, pipeline.config.evaluation
    quantities = frozenset(task.target_field for task in pipeline.tasks.values())
    sources = open_sources(config, quantities, "tune")
    several = pipeline.sampling(temperature=1.0, views="none")
    chosen: dict[str, Any] = {}
    fitted: dict[str, Any] = {}
    for task, source in pick_sources(pipeline, sources, list(pipeline.tasks)).items():
        picks = range(min(settings.tuning_images, len(source)))
        if not pipeline.tasks[task].generative:  # which one sample says little of
            chosen[task] = best_setting(pipeline, task, source, picks, bad)
        if config.diffusion.objective == "end_to_end":
            continue  # which has one answer and no members
        record = fit_calibration(
            several,
            source,
            task,
            picks,
            protocols_of(several, task, {})[0],
            nfe=settings.nfe,
            members=MEMBERS,
            seed=settings.seed,
            chunk_size=settings.batch,
            bad=bad,
        )
        if record is not None:
            fitted[task] = record
    return {"sampling": chosen, "calibration": fitted}


def best_setting(
    pipeline: DensePipeline, task: str, source: Source, picks: range, bad: BadItems | None = None
) -> dict[str, Any]:
    """The setting of the least error within the calls of `evaluation`, the cheapest of those that
    are as good; with its score."""
    first = SamplingSetting.of(pipeline.config.evaluation, None)
    if pipeline.config.diffusion.sampler != "ddim" or first.nfe == 1:
        first = replace(first, views="none")
    tried = dict.fromkeys([first, *candidates(pipeline)])
    alike: dict[SamplingSetting, list[int]] = {}  # but for their calls
    for one in tried:
        alike.setdefault(replace(one, nfe=0), []).append(one.nfe)
    errors: dict[SamplingSetting, float] = {}
    for way, calls in alike.items():
        found = _errors(pipeline, task, source, picks, way, calls, bad)
        errors |= {replace(way, nfe=nfe): error for nfe, error in found.items()}
    least = min(errors.values())
    good = [one for one in tried if errors[one] <= least + ENOUGH * abs(least)]
    best = min(good, key=lambda one: (one.nfe * one.members, errors[one]))
    apart = isinstance(pipeline.config.data.get(source.name), ScenesSettings)
    where = {"images": len(picks), "split": "tune" if apart else "evaluation"}
    best_of = {name: value for name, value in asdict(best).items() if name != "settled"}
    return best_of | {"error": errors[best], "settings": len(errors)} | where


def candidates(pipeline: DensePipeline) -> Iterator[SamplingSetting]:
    """Settings within the budget of `evaluation`: one member from zeros, with and without views,
    and so many members from noise."""
    settings = pipeline.config.evaluation
    budget = settings.nfe * settings.members
    if pipeline.config.diffusion.objective == "end_to_end":
        return  # it has one
    for nfe in sorted({1, 2, *settings.sweep_nfe}):
        if nfe > budget or not _spendable(pipeline, nfe):
            continue
        ways = settings.sweep_views if pipeline.diffusion.settings.sampler == "ddim" else ("none",)
        for views in ways if nfe > 1 else ways[:1]:  # one call sees one view
            yield SamplingSetting(nfe, 1, 0.0, views)
        if (members := min(budget // nfe, max(settings.sweep_members))) > 1:
            yield SamplingSetting(nfe, members, 1.0, "none")


def _spendable(pipeline: DensePipeline, nfe: int) -> bool:
    try:
        pipeline.diffusion.check_calls(nfe)
    except UserError:
        return False
    return True


def _errors(
    pipeline: DensePipeline,
    task: str,
    source: Source,
    picks: range,
    way: SamplingSetting,
    calls: Sequence[int],
    bad: BadItems | None,
) -> dict[int, float]:
    """The main metric under the task's protocol, or 1 less it where higher is better, of a way to
    sample at each number of calls; all in one go, so that they share what they can."""
    settings, rule = pipeline.config.evaluation, protocols_of(pipeline, task, {})[0]
    scores = score_source(
        pipeline.with_setting(way),
        source,
        task,
        protocol=rule.name,
        indices=picks,
        nfe=sorted(calls),
        members=[way.members],
        seed=settings.seed,
        chunk_size=settings.batch,
        bad=bad,
    )
    metrics = {nfe: metrics_of(rows, rule.name) for (nfe, _), rows in scores.settings.items()}
    metric = main_metric(task, next(iter(metrics.values())), rule.metrics)
    assert metric is not None, f"{task} has a main metric"
    return {nfe: measure(metric).error(values[metric]) for nfe, values in metrics.items()}
