"""The test-time sweep: what each setting costs and reaches, and what follows from it.

Every variant is scored over the grid NFE x members, with a journal, so that a sweep that was killed
goes on from its last image. Members are nested: a column of one NFE costs its largest ensemble, and
further rules for merging cost nothing more.

The folder: sweep.csv (one row per setting and metric, `scaling.sampling.sweeps`), per_sample.csv,
results.json (the largest settings), frontier.json (settings worth their cost), fit.json (what each
axis is worth), claims.json (what further calls and members do, `scaling.sampling.claims`, which can
be computed again from per_sample.csv), pictures, sweep.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepsight.data.table import Source
from stepsight.distributed import barrier, rank
from stepsight.errors import UserError
from stepsight.evaluation import results
from stepsight.evaluation.evaluate import drawing, scored
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.jobs import ScoringJob, ScoringPlan, jobs_of
from stepsight.evaluation.records import Identity, answer_flops, records_of
from stepsight.evaluation.statistics import Pool, interval, means, per_image, pool
from stepsight.evaluation.views import size_of, working_at
from stepsight.measures import main_metric, measure
from stepsight.metrics import protocol as protocols
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.reliability import write_reliability
from stepsight.report.sweep import page as sweep_page
from stepsight.results import Result
from stepsight.scaling.intervals import mean_interval
from stepsight.scaling.records import ScalingRecord, append
from stepsight.scaling.sampling.axes import surfaces
from stepsight.scaling.sampling.claims import Claim, decide, way
from stepsight.scaling.sampling.frontier import frontiers
from stepsight.scaling.sampling.paired import MetricTable, Setting
from stepsight.scaling.sampling.sweeps import Cell, Family
from stepsight.scaling.sampling.sweeps import write_sweep as write_cells
from stepsight.testtime import strategies
from stepsight.testtime.film import SamplingOption, shoot
from stepsight.testtime.latency import latencies
from stepsight.testtime.variants import Axes, Candidate, Variant, usual_variants

COUNTS = ("n_images", "hidden")  # among the metrics
PROPER = ("crps", "brier", "edge_f1")  # claims are made of these beside the main metric


class VariantScores(NamedTuple):
    """The scores of a task in a variant, members merged by a rule."""

    variant: Variant
    job: ScoringJob
    scores: Scores
    alone: Mapping[Setting, float]  # seconds that one picture takes by itself

    @property
    def merge(self) -> str:
        """The rule that merged the members; "" where a task knows no other."""
        return self.scores.merge or getattr(self.job.predictor.task, "merge_by", "")

    @property
    def columns(self) -> dict[str, Any]:
        """How it was sampled, as tables have it."""
        size = "x".join(map(str, self.scores.working))
        return self.variant.columns | {"size": size, "merge": self.merge}

    @property
    def largest(self) -> Setting:
        """The largest NFE with the most members."""
        return max(self.scores.settings)

    @property
    def protocol(self) -> Protocol:
        return protocols.get(self.scores.protocol)

    def metrics(self, setting: Setting) -> dict[str, float]:
        """What was measured at a setting."""
        metrics = results.metrics_of(self.scores.settings[setting], self.scores.protocol)
        return {name: value for name, value in metrics.items() if name not in COUNTS}

    def records(self) -> Iterator[ScalingRecord]:
        """For the scaling analysis."""
        label, identity = self.variant.label(self.scores.merge), self.variant.candidate.identity
        return records_of(self.scores, self.variant.pipeline, label, identity)


def sweep(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: ScoringPlan,
    identity: Identity,
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Claim]:
    """Sweep NFE x members of a run's checkpoint, whose report will show it (`sweep_variants`): one
    member from zeros, with and without views, and members from noise."""
    path = "" if pipeline.home is None else str(pipeline.home)
    candidate = Candidate(path, pipeline, identity, sources, plan.label)
    tried = usual_variants([candidate], plan, Axes(samplers=[plan.sampler]))
    return sweep_variants(folder, tried.kept, records, advance, page=False)


def sweep_variants(
    folder: Path,
    tried: Sequence[Variant],
    records: Path,
    advance: Callable[[int], None] = lambda images: None,
    *,
    with_strategies: bool = False,
    page: bool = True,
) -> list[Claim]:
    """Score every variant and write it all to `folder`; append the records. Returns the claims.

    All processes take part; the first writes. with_strategies: also try what else the variant with
    the most members could do with its largest budget (`strategies`).
    page: False where the report of a run has its sections.
    """
    if with_strategies and max(max(variant.plan.members) for variant in tried) < 2:
        raise UserError("strategies are of ensembles: sweep at least 2 members at temperature 1.")
    pairs = [
        (each, job)
        for each in tried
        for job in jobs_of(
            each.pipeline, each.candidate.sources, each.plan, keep=True, variant=each.name
        )
    ]
    jobs = [job for _, job in pairs]
    with scored(folder, jobs, advance) as by_job:
        times = latencies(jobs, [scores.indices[0] for scores, *_ in by_job])
        swept = [
            VariantScores(*pair, scores, alone)
            for pair, every, alone in zip(pairs, by_job, times)
            for scores in every
        ]
        claims = write_sweep(folder, swept, records)
        if with_strategies and rank() == 0:
            most = max(tried, key=lambda variant: max(variant.plan.members))
            images = {row.scores.task: row.scores.indices for row in swept if row.variant is most}
            what = most.pipeline, most.candidate.sources, most.plan
            strategies.run(folder, *what, advance, images)
        if rank() == 0:
            sweep_page.write(folder, page)
    return claims


def write_sweep(folder: Path, swept: Sequence[VariantScores], records: Path) -> list[Claim]:
    """Write tables, what follows from them, and pictures, and append the records. All processes
    take part: the first writes the tables and returns the claims, the others draw."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in drawing([*dict.fromkeys(row.scores.task for row in swept)]):
        _show(folder, [row for row in swept if row.scores.task == task])
    claims = list[Claim]()
    if rank() == 0:
        append(records, [record for row in swept for record in row.records()])
        claims = _write_tables(folder, swept)
    barrier()
    return claims


def _write_tables(folder: Path, swept: Sequence[VariantScores]) -> list[Claim]:
    """Returns the claims."""
    cells = [cell for row in swept for cell in cells_of(row)]
    write_cells(folder / "sweep.csv", cells)
    samples = [sample | row.columns for row in swept for sample in results.sample_rows(row.scores)]
    results.write_table(folder / "per_sample.csv", samples)
    results.write_json(folder / "results.json", [_result(row).to_dict() for row in swept])
    tables = [table for row in swept for table in tables_of(row)]
    results.write_json(folder / "frontier.json", frontiers(cells, tables=tables))
    results.write_json(folder / "fit.json", surfaces(cells))
    claims = decide(tables)
    results.write_json(folder / "claims.json", [claim.to_dict() for claim in claims])
    return claims


def cells_of(row: VariantScores) -> Iterator[Cell]:
    """A cell per setting and metric; the scores of the uncertainty are metrics too."""
    scores = row.scores
    for (nfe, members), rows in scores.settings.items():
        names = row.metrics((nfe, members))
        values = {name: interval(rows, name, row.protocol) for name in names}
        stated = results.uncertainties(scores, (nfe, members))
        values |= {name: mean_interval(value.numpy()) for name, value in stated.items()}
        for metric, value in values.items():
            yield Cell(
                task=scores.task,
                **row.columns,
                nfe=nfe,
                members=members,
                total_calls=nfe * members,
                gflop_per_image=answer_flops(row.variant.pipeline, scores, nfe, members) / 1e9,
                ms_per_image=scores.seconds[nfe, members] * 1e3,
                latency_ms=row.alone.get((nfe, members), math.nan) * 1e3,
                peak_gb=scores.peak_gb[nfe, members],
                metric=metric,
                value=value.value,
                lo=value.lo,
                hi=value.hi,
                dataset=scores.source,
                protocol=row.variant.pipeline.profile.mark(row.protocol.id),
                images=len(scores.keys),
                weights=row.variant.pipeline.name,
            )


def _result(row: VariantScores) -> Result:
    """The largest setting as evaluations report theirs."""
    largest = results.result(row.scores, row.largest, row.job.provenance(row.job.protocols[0]))
    merge = {"merge": row.scores.merge} if row.scores.merge else {}
    return replace(largest, options={**largest.options, **merge})


def tables_of(row: VariantScores) -> Iterator[MetricTable]:
    """What claims are made of, image by image: the main metric and the proper scores, each as it is
    averaged, at all settings where it is a number."""
    scores, protocol = row.scores, row.protocol
    main = main_metric(scores.task, row.metrics(row.largest), protocol.metrics)
    constant = scores.baselines.get("constant")
    for metric in dict.fromkeys([main, *PROPER] if main else PROPER):
        pools = {
            setting: pooled.flat
            for setting, rows in scores.settings.items()
            if (pooled := _pool(rows, results.uncertainties(scores, setting), metric, protocol))
        }
        trivial = _pool(constant, {}, metric, protocol) if constant and metric == main else None
        if pools:
            first = next(iter(pools.values()))
            yield MetricTable(
                task=scores.task,
                metric=metric,
                family=Family.of(row.columns),
                keys=scores.keys,
                settings={setting: pooled.rows for setting, pooled in pools.items()},
                of=first.of,
                averaging=first.averaging,
                main=metric == main,
                constant=trivial.flat.rows if trivial else None,
            )


def _pool(rows: Rows, stated: Rows, metric: str, protocol: Protocol) -> Pool | None:
    """A metric as sums over images; None where it is no number."""
    if metric in stated:
        values = stated[metric].double().numpy()
        return means(values) if np.isfinite(values).any() else None
    if not math.isfinite(results.metrics_of(rows, protocol.name).get(metric, math.nan)):
        return None
    return pool(rows, metric, protocol) or means(per_image(rows, metric))


def _show(folder: Path, swept: Sequence[VariantScores]) -> None:
    """The panel and the film strip of a task's telling image, and the reliability of the best of
    the largest ensembles."""
    most = max(row.largest[1] for row in swept)
    best = min((row for row in swept if row.largest[1] == most), key=_error)
    task, plan, protocol = best.scores.task, best.variant.plan, best.job.protocols[0]
    stated = best.scores.uncertainty.get(best.largest, {})
    write_reliability(folder / f"reliability-{task}.png", task, stated, best.largest[1])
    sampled = way(Family.of(best.columns))  # temperature and views alone may differ
    options = [
        SamplingOption(_working(row), row.scores.settings)
        for row in swept
        if way(Family.of(row.columns)) == sampled and row.scores.keys == best.scores.keys
    ]
    film = shoot(task, options, best.job.source, best.scores.indices, protocol, seed=plan.seed)
    film.panel.write(folder)
    film.strip.write(folder, "films")


def _working(row: VariantScores) -> DensePipeline:
    """The pipeline at the size it was scored at, merging as it did."""
    task, grid = row.scores.task, size_of(row.job.source[row.scores.indices[0]])
    sizes = grid, row.variant.plan.size, row.job.protocols[0].working
    pipeline = working_at(row.variant.pipeline, task, *sizes)
    return pipeline.sampling(merge={task: row.scores.merge}) if row.scores.merge else pipeline


def _error(row: VariantScores) -> float:
    """Of the largest setting; infinite where none was measured."""
    metric = row.job.predictor.task.metric
    error = measure(metric).error(row.metrics(row.largest)[metric])
    return error if math.isfinite(error) else math.inf
