"""Runs side by side: what each cost, its validation loss and its scores, for every task; as tables
in Markdown, or as a page that says first which run is best.

Scores share a column only if they have the same data, protocol, sampler, NFE, members and images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from stepsight import checkpoint
from stepsight.errors import UserError, command
from stepsight.measures import headline, measure, number, spoken
from stepsight.report import figures, rendering
from stepsight.report.figures import BELOW, COLUMN, REFERENCE, STYLE, look
from stepsight.report.rendering import interval
from stepsight.report.verdict import TaskSentence
from stepsight.results import Result, read_results
from stepsight.scaling.sampling.wording import count


@dataclass(frozen=True)
class Run:
    """What is compared of a run folder."""

    name: str
    model: str
    images: int
    flops: float  # of its training
    inherited: float  # of the runs whose weights it started from
    losses: dict[str, float]  # validation loss by task, of the weights that were scored
    results: dict[str, Result]  # by task, eval/results.json under its first protocol


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Finished runs, by their folders' names, or by their paths where two have one name.

    Raises UserError if one is named twice, has no checkpoint or was not evaluated.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a run is named twice. Name each once.")
    runs = [read_run(path) for path in paths]
    if len({run.name for run in runs}) < len(runs):
        return [replace(run, name=str(path)) for run, path in zip(runs, paths)]
    return runs


def read_run(path: Path) -> Run:
    """A finished run. Raises UserError if it has no checkpoint or was not evaluated."""
    saved = checkpoint.read(path, prefer="last", lazy=True)
    scores = path / "eval" / "results.json"
    if not scores.is_file():
        raise UserError(f"{scores} not found: run `{command('evaluate', '--checkpoint', path)}`.")
    results: dict[str, Result] = {}
    for result in read_results(scores):
        results.setdefault(result.task, result)
    return Run(
        name=path.name,
        model=saved.config.model.name,
        images=saved.meta["images_seen"],
        flops=saved.meta["training_flops"],
        inherited=saved.meta.get("inherited_flops", 0.0),
        losses=checkpoint.read(path, lazy=True).meta["losses"],
        results=results,
    )


class RunTable(NamedTuple):
    """A table of the comparison: of costs, or of the scores of a task that were made in one way."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Ranking(NamedTuple):
    """The errors of runs in the main metric of a task, scored in one way."""

    task: str
    metric: str
    values: dict[str, float]  # by run
    ends: Mapping[str, tuple[float, float]] = {}  # of their intervals, where known

    @property
    def errors(self) -> dict[str, float]:
        return {run: measure(self.metric).error(value) for run, value in self.values.items()}

    def overlap(self, run: str, other: str) -> bool:
        """Whether the intervals of two runs do."""
        known = [self.ends[name] for name in (run, other) if name in self.ends]
        return len(known) == 2 and max(lo for lo, _ in known) <= min(hi for _, hi in known)


def compare(runs: Sequence[Run]) -> str:
    """Markdown: a table of costs, then one per task and way of scoring."""
    tables = [_costs(runs), *(_scores(task, how, group) for task, how, group in _groups(runs))]
    written = [
        f"{table.title}\n\n{_markdown(table)}" if table.title else _markdown(table)
        for table in tables
    ]
    return "\n\n".join(written) + "\n"


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """The same as a page that needs no other file."""
    rankings = [ranking for _, _, group in _groups(runs) if (ranking := _ranked(group))]
    page = rendering.render(
        "compare",
        title=f"{len(runs)} runs side by side",
        sentences=[_said(ranking) for ranking in rankings],
        curve=dots(rankings) if rankings else None,
        costs=_costs(runs),
        cheapest=_cheapest(runs),
        scores=[(task, how, _scores(task, how, group)) for task, how, group in _groups(runs)],
    )
    return rendering.write_page(path, page)


def _cheapest(runs: Sequence[Run]) -> str:
    """What cost least, in words."""
    spent = {run.name: run.flops + run.inherited for run in runs}
    if len(set(spent.values())) < 2:
        return "the same for all"
    return f"{min(spent, key=lambda name: spent[name])} cost least"


@matplotlib.rc_context(STYLE)
def dots(rankings: Sequence[Ranking]) -> Figure:
    """A line a task, a mark a run: its error in percent of that of the first run."""
    size = COLUMN[0], min(6.0, 1.6 + 0.4 * len(rankings))
    figure, axes = figures.new_axes("", "error, % of the first run", "", size)
    names = list(dict.fromkeys(run for ranking in rankings for run in ranking.values))
    for i, run in enumerate(names):
        known = [(y, r.errors) for y, r in enumerate(rankings) if run in r.values]
        shares = [
            100 * errors[run] / (next(iter(errors.values())) or np.nan) for _, errors in known
        ]
        marks: dict[str, Any] = {"linewidth": 0, "ms": 7, "alpha": 0.85}
        axes.plot(shares, [y for y, _ in known], **look(i), **marks, label=run)
    axes.set_yticks(range(len(rankings)), [f"{r.task} {measure(r.metric).label}" for r in rankings])
    axes.set_ylim(len(rankings) - 0.5, -0.5)
    axes.axvline(100, **REFERENCE)
    figure.legend(loc=BELOW, ncols=2 if max(map(len, names)) > 12 else 4)
    return figure


def _said(ranking: Ranking) -> TaskSentence:
    """Which run is best, by how much, and whether that is more than the intervals."""
    errors = ranking.errors
    best, second, *_ = ordered = sorted(errors, key=lambda run: errors[run])
    told = ", ".join(f"{run} {number(ranking.values[run])}" for run in ordered)
    kind, gain = measure(ranking.metric), errors[second] - errors[best]
    lead = f"{best} is best"
    if gain > 0 and errors[second] > 0:
        lead += f", {gain / errors[second]:.1%} less error than {second}"
    unsure = ", though their intervals overlap" if ranking.overlap(best, second) else ""
    lead = f"{lead}{unsure}" if gain else f"{best} and {second} are equal"
    return TaskSentence(ranking.task, None, f"{lead}. {kind.axis}: {told}.")


def _ranked(group: Sequence[tuple[Run, Result]]) -> Ranking | None:
    """None of a single run, or of scores without a main metric."""
    first = group[0][1]
    if len(group) < 2 or first.main is None:
        return None
    values = {run.name: result.metrics[first.main] for run, result in group}
    known = {run.name: result.intervals.get(first.main) for run, result in group}
    return Ranking(first.task, first.main, values, {run: x for run, x in known.items() if x})


def _groups(runs: Sequence[Run]) -> list[tuple[str, str, list[tuple[Run, Result]]]]:
    """Task, way of scoring, and the runs that were scored so."""
    groups: dict[tuple[str, str], list[tuple[Run, Result]]] = {}
    for task in dict.fromkeys(task for run in runs for task in run.results):
        for run in (run for run in runs if task in run.results):
            result = run.results[task]
            groups.setdefault((task, _scoring(result)), []).append((run, result))
    return [(task, how, group) for (task, how), group in groups.items()]


def _costs(runs: Sequence[Run]) -> RunTable:
    rows = []
    for run in runs:
        spent = run.flops, run.inherited, run.flops + run.inherited
        petaflops = [f"{flops / 1e15:.3f}" for flops in spent]
        rows.append([run.name, run.model, f"{run.images:,}", *petaflops])
    return RunTable("", ["run", "model", "images", "PFLOP", "PFLOP before", "PFLOP in all"], rows)


def _scores(task: str, how: str, group: Sequence[tuple[Run, Result]]) -> RunTable:
    first = group[0][1]
    main = [] if first.main is None else [first.main]  # the protocol's, which may not be the task's
    names = list(dict.fromkeys([*main, *headline(task, first.metrics)]))
    head = ["predictor", "validation loss", *[measure(name).label for name in names]]
    rows = []
    for run, result in group:
        loss = run.losses.get(task)
        values = [
            f"{number(result.metrics[name])} {interval(result.intervals.get(name))}".strip()
            for name in names
        ]
        rows.append([run.name, "" if loss is None else number(loss), *values])
    for name, metrics in first.baselines.items():
        rows.append([spoken(name), "", *[number(metrics[metric]) for metric in names]])
    return RunTable(f"{task}: {how}", head, rows)


def _scoring(result: Result) -> str:
    """How a result was scored, and on which images."""
    without = f" (without {', '.join(result.skipped)})" if result.skipped else ""
    return (
        f"{result.data}, {result.protocol}, {result.n} images{without}, {result.sampler}, "
        f"{result.nfe} NFE x {count(result.members, 'member')}"
    )


def _markdown(table: RunTable) -> str:
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows)]
    lines = [table.head, ["-" * width for width in widths], *table.rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines
    )
