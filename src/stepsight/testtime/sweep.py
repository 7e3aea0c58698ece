"""The test-time sweep: what each setting costs and reaches, and what follows from it.

Every variant is scored over the grid NFE x members, with a journal of its own, so that a sweep that
was killed goes on from its last image. Members are nested: a column of one NFE costs its largest
ensemble, and further rules for merging cost nothing more.

The folder: sweep.csv (one row a setting and metric, `scaling.sampling.sweeps`), per_sample.csv,
results.json (the largest settings), frontier.json (settings worth their cost), fit.json (what each
dial is worth), claims.json (what further calls and members do, `scaling.sampling.claims`, which can
be computed again from per_sample.csv), pictures, sweep.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import score_jobs
from stepsight.evaluation.evaluator import Scores, rank
from stepsight.evaluation.jobs import Job, Plan, jobs_of
from stepsight.evaluation.journal import Journal
from stepsight.evaluation.predictors import Setting, working_at
from stepsight.evaluation.records import Identity, answer_flops, record_lines
from stepsight.evaluation.results import (
    finite,
    metrics_of,
    result,
    sample_rows,
    uncertainties,
    write_json,
    write_table,
)
from stepsight.evaluation.statistics import Pool, interval, means, per_image, pool
from stepsight.measures import main_metric, measure
from stepsight.metrics import protocol as protocols
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.reliability import write_reliability
from stepsight.report.sweep import page as sweep_page
from stepsight.scaling.intervals import mean_interval
from stepsight.scaling.records import ScalingRecord, append
from stepsight.scaling.sampling import claims
from stepsight.scaling.sampling.axes import surfaces
from stepsight.scaling.sampling.frontier import frontiers
from stepsight.scaling.sampling.paired import Table
from stepsight.scaling.sampling.sweeps import Cell, Family
from stepsight.scaling.sampling.sweeps import write_sweep as write_cells
from stepsight.testtime import strategies
from stepsight.testtime.film import Way, film_strip
from stepsight.testtime.variants import Axes, Candidate, Variant, usual_variants

UNMEASURED = ("n_images", "hidden")  # counts among the metrics
PROPER = ("crps", "brier", "edge_f1")  # claims are made of these beside the main metric


class Scored(NamedTuple):
    """The scores of one task in one variant, members merged by one rule."""

    variant: Variant
    job: Job
    scores: Scores

    @property
    def merge(self) -> str:
        """The rule that merged the members; "" where a task knows but one."""
        return self.scores.merge or getattr(self.job.predictor.task, "merge_by", "")

    @property
    def size(self) -> str:
        return "x".join(map(str, self.scores.working))

    @property
    def family(self) -> Family:
        return Family.of(self.variant.columns | {"size": self.size, "merge": self.merge})

    @property
    def largest(self) -> tuple[int, int]:
        """The largest NFE with the most members."""
        return max(self.scores.settings)


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


def sweep_variants(
    folder: Path,
    tried: Sequence[Variant],
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
    *,
    with_strategies: bool = False,
    page: bool = True,
) -> list[dict[str, Any]]:
    """Score every variant and write it all to `folder`; append the records. Returns the claims.

    All processes take part; the first one writes, and forgets the journals. with_strategies: also
    try what else the variant with the most members could do with its largest budget (`strategies`).
    page: False where the report of a run has its sections.
    """
    if with_strategies and max(max(one.plan.members) for one in tried) < 2:
        raise UserError("strategies are of ensembles: sweep at least 2 members at temperature 1.")
    every: list[Scored] = []
    journals: list[Journal] = []
    for variant in tried:
        sources = variant.candidate.sources
        jobs = jobs_of(variant.pipeline, sources, variant.plan, keep=True, variant=variant.name)
        own = [job.journal(folder) for job in jobs]
        scored = zip(jobs, score_jobs(jobs, own, advance))
        every += [Scored(variant, job, one) for job, found in scored for one in found]
        journals += own
    if rank() != 0:
        return []
    append(records, [line for one in every for line in _records(one)])
    decided = write_sweep(folder, every)
    if with_strategies:
        one = max(tried, key=lambda variant: max(variant.plan.members))
        strategies.run(folder, one.pipeline, one.candidate.sources, one.plan, advance)
    sweep_page.write(folder, page)
    for journal in journals:
        journal.remove()
    return decided


def _records(one: Scored) -> list[ScalingRecord]:
    label = one.variant.label(one.scores.merge)
    return record_lines([one.scores], one.variant.pipeline, label, one.variant.candidate.identity)


def write_sweep(folder: Path, every: Sequence[Scored]) -> list[dict[str, Any]]:
    """Write tables, what follows from them, and pictures; returns the claims."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [cell for one in every for cell in cells_of(one)]
    write_cells(folder / "sweep.csv", cells)
    write_table(folder / "per_sample.csv", [row for one in every for row in _sample_rows(one)])
    write_json(folder / "results.json", [_result(one) for one in every])
    tables = [table for one in every for table in tables_of(one)]
    write_json(folder / "frontier.json", finite(frontiers(cells, tables=tables)))
    write_json(folder / "fit.json", surfaces(cells))
    decided = [claim.to_dict() for claim in claims.decide(tables)]
    write_json(folder / "claims.json", decided)
    for task in dict.fromkeys(one.scores.task for one in every):
        _show(folder, [one for one in every if one.scores.task == task])
    return decided


def cells_of(one: Scored) -> Iterator[Cell]:
    """One row a setting and metric; the scores of the uncertainty are metrics too."""
    scores, rule = one.scores, protocols.get(one.scores.protocol)
    for (nfe, members), rows in scores.settings.items():
        found = {name: interval(rows, name, rule) for name in _metrics(scores, (nfe, members))}
        stated = uncertainties(scores, (nfe, members))
        found |= {name: mean_interval(value.numpy()) for name, value in stated.items()}
        for metric, value in found.items():
            yield Cell(
                task=scores.task,
                **one.variant.columns,
                nfe=nfe,
                members=members,
                total_calls=nfe * members,
                gflop_per_image=answer_flops(one.variant.pipeline, scores, nfe, members) / 1e9,
                ms_per_image=scores.seconds[nfe, members] * 1e3,
                peak_gb=scores.peak_gb[nfe, members],
                metric=metric,
                value=value.value,
                lo=value.lo,
                hi=value.hi,
                size=one.size,
                merge=one.merge,
                dataset=scores.source,
                protocol=rule.id,
                images=len(scores.keys),
                weights=one.variant.pipeline.name,
            )


def _metrics(scores: Scores, setting: Setting) -> list[str]:
    found = metrics_of(scores.settings[setting], scores.protocol)
    return [name for name in found if name not in UNMEASURED]


def _sample_rows(one: Scored) -> Iterator[dict[str, Any]]:
    """One row an image and setting, which says how it was sampled."""
    for row in sample_rows(one.scores):
        yield row | one.variant.columns | {"size": one.size, "merge": one.merge}


def _result(one: Scored) -> dict[str, Any]:
    """The largest setting as evaluations tell theirs."""
    told = result(one.scores, one.largest, one.job.made(one.job.protocols[0]))
    return told | {"options": told["options"] | ({"merge": m} if (m := one.scores.merge) else {})}


def tables_of(one: Scored) -> Iterator[Table]:
    """What claims are made of, image by image: the main metric and the proper scores, each as it is
    averaged, at all settings where it is a number."""
    scores, rule = one.scores, protocols.get(one.scores.protocol)
    main = main_metric(scores.task, _metrics(scores, one.largest), rule.metrics)
    constant = scores.baselines.get("constant")
    for metric in dict.fromkeys([main, *PROPER] if main else PROPER):
        pools = {
            at: found.flat
            for at, rows in scores.settings.items()
            if (found := _pool(rows, uncertainties(scores, at), metric, rule))
        }
        trivial = _pool(constant, {}, metric, rule) if constant and metric == main else None
        if pools:
            first = next(iter(pools.values()))
            yield Table(
                task=scores.task,
                metric=metric,
                family=one.family,
                keys=scores.keys,
                settings={at: found.rows for at, found in pools.items()},
                of=first.of,
                averaging=first.averaging,
                main=metric == main,
                constant=trivial.flat.rows if trivial else None,
            )


def _pool(rows: Rows, stated: Rows, metric: str, rule: Protocol) -> Pool | None:
    """A metric as sums over images; None where it is no number."""
    if metric in stated:
        values = stated[metric].double().numpy()
        return means(values) if np.isfinite(values).any() else None
    if not math.isfinite(metrics_of(rows, rule.name).get(metric, math.nan)):
        return None
    return pool(rows, metric, rule) or means(per_image(rows, metric))


def _show(folder: Path, every: Sequence[Scored]) -> None:
    """The film strip of one task's telling image, and the reliability of the best of the largest
    ensembles."""
    most = max(one.largest[1] for one in every)
    best = _best([one for one in every if one.largest[1] == most])
    task, plan, rule = best.scores.task, best.variant.plan, best.job.protocols[0]
    stated = best.scores.uncertainty.get(best.largest, {})
    write_reliability(folder / f"reliability-{task}.png", task, stated, best.largest[1])
    ways = [Way(_working(one), one.scores.settings) for one in every if _alike(one, best)]
    path = folder / f"film-{task}.png"
    film_strip(path, task, ways, best.job.source, best.job.indices, rule, seed=plan.seed)


def _alike(one: Scored, other: Scored) -> bool:
    """Whether they differ in temperature and views alone."""
    return claims.way(one.family) == claims.way(other.family)


def _working(one: Scored) -> DensePipeline:
    """The pipeline at the size it was scored at, merging as it did."""
    task, size = one.scores.task, one.variant.plan.size
    longest = one.job.protocols[0].working if size is None else size
    sample = one.job.source[one.job.indices[0]]
    grid = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    pipeline = working_at(one.variant.pipeline, task, longest, grid)
    return pipeline.sampling(merge={task: one.scores.merge}) if one.scores.merge else pipeline


def _best(every: Sequence[Scored]) -> Scored:
    """The one whose largest setting scores best; the first one where none was measured."""

    def error(one: Scored) -> float:
        metric = one.job.predictor.task.metric
        value = metrics_of(one.scores.settings[one.largest], one.scores.protocol)[metric]
        value = -value if measure(metric).higher_is_better else value
        return value if math.isfinite(value) else math.inf

    return min(every, key=error)
