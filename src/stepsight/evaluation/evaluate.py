"""An evaluation: jobs scored with a journal, written as tables, pictures, a page and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from stepsight.data.table import Source
from stepsight.evaluation.evaluator import Scores, rank, score
from stepsight.evaluation.jobs import Job, Plan, jobs_of
from stepsight.evaluation.journal import Journal
from stepsight.evaluation.pictures import extremes_grid
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.records import STARTS, Identity, record_lines, starts_text
from stepsight.evaluation.results import (
    flat,
    result,
    sample_rows,
    write_json,
    write_table,
)
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.page import write_page
from stepsight.scaling.records import append

Advance = Callable[[int], None]


def score_jobs(
    jobs: Sequence[Job], journals: Sequence[Journal | None], advance: Advance
) -> list[list[Scores]]:
    """The scores of every job, a protocol each."""
    return [
        score(
            job.predictor,
            job.source,
            job.protocols,
            job.indices,
            journal=journal,
            advance=advance,
        )
        for job, journal in zip(jobs, journals)
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


def assess(
    folder: Path,
    jobs: Sequence[Job],
    advance: Advance = lambda images: None,
    done: Callable[[Sequence[Scores]], None] = lambda scores: None,
) -> list[dict[str, Any]]:
    """Write results.json, results.csv, per_sample.csv, grids and evaluation.html to `folder`.

    All processes take part; the first one writes, calls `done` with the scores, and forgets the
    journals. An evaluation killed before that goes on from its last image. Returns the results, one
    a task and protocol.
    """
    journals = [job.journal(folder) for job in jobs]
    every = score_jobs(jobs, journals, advance)
    results = [
        result(scores, next(reversed(scores.settings)), job.made(rule))
        for job, found in zip(jobs, every)
        for rule, scores in zip(job.protocols, found)
    ]
    if rank() == 0:
        flattened = [scores for found in every for scores in found]
        _write(folder, jobs, every, results)
        done(flattened)
        for journal in journals:
            journal.remove()
    return results


def _write(
    folder: Path,
    jobs: Sequence[Job],
    every: Sequence[Sequence[Scores]],
    results: Sequence[dict[str, Any]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    write_table(folder / "results.csv", [flat(one) for one in results])
    rows = [row for found in every for scores in found for row in sample_rows(scores)]
    write_table(folder / "per_sample.csv", rows)
    grids = [_grid(folder, job, found[0]) for job, found in zip(jobs, every)]
    write_page(folder / "evaluation.html", results, filter(None, grids))


def _grid(folder: Path, job: Job, scores: Scores) -> Path | None:
    """The best, median and worst images under the job's first protocol."""
    path = folder / f"grid-{scores.task}.png"
    setting = next(reversed(scores.settings))
    rows = scores.settings[setting]
    return extremes_grid(job.predictor, job.source, rows, job.protocols[0], job.indices, path)


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
