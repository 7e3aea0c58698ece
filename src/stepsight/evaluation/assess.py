"""From jobs to a folder of results: scored with a journal, written as tables, pictures and a page.

A job is one task to score: who predicts, on which images, under which protocols. Models
(`run.evaluate`) and imported predictions (`imported`) come the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stepsight.data.config import FileSettings, SourceSettings
from stepsight.data.table import Source
from stepsight.evaluation.evaluator import Scores, rank, score
from stepsight.evaluation.journal import Journal
from stepsight.evaluation.page import write_page
from stepsight.evaluation.pictures import extremes_grid
from stepsight.evaluation.predictors import Predictor
from stepsight.evaluation.results import (
    Made,
    flat,
    result,
    sample_rows,
    write_json,
    write_table,
)
from stepsight.metrics.protocol import Protocol

Advance = Callable[[int], None]


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


def _options(source: Source) -> dict[str, Any]:
    """The settings by which a source offers another truth or other images than it usually does."""
    settings = getattr(source, "settings", None)
    if not isinstance(settings, SourceSettings):
        return {}
    common = {one.name for one in fields(FileSettings)} | {"cache"}
    own = {one.name: one.default for one in fields(settings) if one.name not in common}
    values = {name: getattr(settings, name) for name in own}
    return {name: value for name, value in values.items() if value != own[name]}


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
