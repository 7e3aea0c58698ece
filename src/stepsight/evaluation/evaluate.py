"""An evaluation: jobs scored with a journal, written as tables, pictures, a page and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TypeVar

from stepsight.data.bad import QUARANTINE, append_note
from stepsight.data.table import Source
from stepsight.distributed import barrier, gathered, phase, rank, world
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.jobs import ScoringJob, ScoringPlan, jobs_of
from stepsight.evaluation.pictures import draw_extremes
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.records import STARTS, Identity, records_of, starts_text
from stepsight.evaluation.results import result, sample_rows, write_json, write_table
from stepsight.evaluation.scoring.items import PART
from stepsight.pipeline.dense import DensePipeline
from stepsight.results import Result
from stepsight.scaling.records import append
from stepsight.signals import Preempted, requested

Advance = Callable[[int], None]
T = TypeVar("T")


@contextmanager
def scored(
    folder: Path, jobs: Sequence[ScoringJob], advance: Advance
) -> Iterator[list[list[Scores]]]:
    """The scores of every job, one per protocol and merge rule.

    Until the block ends without an error, journals in `folder` hold them, so that an evaluation
    that is killed goes on from its last image. What was left out stands in `quarantine.jsonl`.
    Raises Preempted in all processes where one was asked to end.
    """
    journals = [job.journal(folder) for job in jobs]
    by_job = [job.scores(advance, journal) for job, journal in zip(jobs, journals)]
    if asked := next(filter(None, gathered(requested())), ""):
        raise Preempted(f"{asked}: all images are scored, and kept in {folder / 'journal'}.")
    phase("writes what was scored", PART)
    if rank() == 0:
        _write_quarantine(folder / QUARANTINE, jobs, by_job)
    yield by_job
    if rank() == 0:
        for journal in journals:
            journal.remove()


def drawing(pictures: Sequence[T]) -> list[T]:
    """Those of the pictures that this process draws: the first of several writes meanwhile."""
    artists = range(1, world()) if world() > 1 else range(1)
    shares = zip(cycle(artists), pictures)
    return [picture for artist, picture in shares if artist == rank()]


def _write_quarantine(
    path: Path, jobs: Sequence[ScoringJob], by_job: Sequence[Sequence[Scores]]
) -> None:
    """A line for each item that was left out, as `data.bad` has them; no file where none was."""
    path.unlink(missing_ok=True)
    for job, (scores, *_) in zip(jobs, by_job):
        for key, reason in scores.skipped.items():
            append_note(path, {"source": job.source.name, "key": key, "reason": reason})


def score_tasks(
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: ScoringPlan,
    advance: Advance = lambda images: None,
) -> list[Scores]:
    """Scores of every task on its source, under its first protocol, without a journal."""
    return [job.scores(advance)[0] for job in jobs_of(pipeline, sources, plan)]


def evaluate(
    folder: Path,
    pipeline: DensePipeline,
    sources: Mapping[str, Source],
    plan: ScoringPlan,
    identity: Identity,
    records: Path,
    advance: Advance = lambda images: None,
) -> list[Result]:
    """Write results, pictures and a page to `folder` (see `evaluate_jobs`); append the records.

    All processes take part; the first writes. Returns the results.
    """
    save_to = folder / "predictions" if plan.save else None
    jobs = jobs_of(pipeline, sources, plan, keep=True, save_to=save_to)

    def add_records(by_job: Sequence[Sequence[Scores]]) -> None:
        lines = []
        for job, every in zip(jobs, by_job):
            model = job.predictor
            assert isinstance(model, Model)
            for scores in every:
                lines += records_of(scores, model.pipeline, _sampler_text(model), identity)
        append(records, lines)

    return evaluate_jobs(folder, jobs, advance, add_records)


def evaluate_jobs(
    folder: Path,
    jobs: Sequence[ScoringJob],
    advance: Advance = lambda images: None,
    done: Callable[[Sequence[Sequence[Scores]]], None] = lambda by_job: None,
) -> list[Result]:
    """Write results.json, results.csv, per_sample.csv, panels of pictures of each task under its
    first protocol, and evaluation.html to `folder`.

    All processes take part; the first writes, and calls `done` with the scores of every job.
    Returns the results, one per task and protocol.
    """
    with scored(folder, jobs, advance) as by_job:
        results = [
            result(scores, next(reversed(scores.settings)), job.provenance(protocol))
            for job, every in zip(jobs, by_job)
            for protocol, scores in zip(job.protocols, every)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        for job, (scores, *_) in drawing([*zip(jobs, by_job)]):
            shown = job.source, [*scores.settings.values()][-1], job.protocols[0], scores.indices
            draw_extremes(folder, job.predictor, *shown)
        if rank() == 0:
            _write_tables(folder, by_job, results)
            done(by_job)
        barrier()
        if rank() == 0:
            _write_page(folder, results)
    return results


def _write_tables(
    folder: Path, by_job: Sequence[Sequence[Scores]], results: Sequence[Result]
) -> None:
    write_json(folder / "results.json", [row.to_dict() for row in results])
    write_table(folder / "results.csv", [row.columns() for row in results])
    rows = [row for every in by_job for scores in every for row in sample_rows(scores)]
    write_table(folder / "per_sample.csv", rows)


def _write_page(folder: Path, results: Sequence[Result]) -> None:
    from stepsight.report.scores import write_page  # with matplotlib, which no step needs

    write_page(folder / "evaluation.html", results)


def _sampler_text(model: Model) -> str:
    """The sampler, its starts and views as sweeps name them, and what else is not as the run itself
    samples and merges."""
    starts = starts_text(model.pipeline.diffusion.settings)
    options = model.provenance.options
    unsaid = (*STARTS, "precision")  # laws go over machines, whose precisions differ
    others = (str(value) for name, value in options.items() if name not in unsaid)
    return " ".join([model.sampler, *starts, *others])
