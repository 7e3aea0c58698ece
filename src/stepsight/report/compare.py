"""Runs side by side: what each cost, its validation loss and its scores, for every task.

Scores share a column only if they have the same data, protocol, sampler, NFE, members and images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepsight import checkpoint
from stepsight.errors import UserError, command
from stepsight.measures import headline, measure, number
from stepsight.report.rendering import interval
from stepsight.results import Result, read_results


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


def read_run(path: Path) -> Run:
    """A finished run. Raises UserError if it has no checkpoint or was not evaluated."""
    saved = checkpoint.read(path, prefer="last", lazy=True)
    scores = path / "eval" / "results.json"
    if not scores.is_file():
        raise UserError(f"{scores} not found: run `{command('evaluate', '--checkpoint', path)}`.")
    return Run(
        name=path.name,
        model=saved.config.model.name,
        images=saved.meta["images_seen"],
        flops=saved.meta["training_flops"],
        inherited=saved.meta.get("inherited_flops", 0.0),
        losses=checkpoint.read(path, lazy=True).meta["losses"],
        results={result.task: result for result in reversed(read_results(scores))},
    )


def compare(runs: Sequence[Run]) -> str:
    """Markdown: a table of costs, then one per task and way of scoring."""
    costs = []
    for run in runs:
        spent = run.flops, run.inherited, run.flops + run.inherited
        petaflops = [f"{flops / 1e15:.3f}" for flops in spent]
        costs.append([run.name, run.model, f"{run.images:,}", *petaflops])
    head = ["run", "model", "images", "PFLOP", "PFLOP before", "PFLOP in all"]
    tables = [_table(head, costs)]
    for task in dict.fromkeys(task for run in runs for task in run.results):
        comparable: dict[str, list[Run]] = {}
        for run in runs:
            if task in run.results:
                comparable.setdefault(_scoring(run.results[task]), []).append(run)
        tables += [f"{task}: {how}\n\n{_scores(task, group)}" for how, group in comparable.items()]
    return "\n\n".join(tables) + "\n"


def _scores(task: str, runs: Sequence[Run]) -> str:
    first = runs[0].results[task]
    main = [] if first.main is None else [first.main]  # the protocol's, which may not be the task's
    names = list(dict.fromkeys([*main, *headline(task, first.metrics)]))
    head = ["predictor", "validation loss", *[measure(name).label for name in names]]
    rows = []
    for run in runs:
        result, loss = run.results[task], run.losses.get(task)
        values = [
            f"{number(result.metrics[name])} {interval(result.intervals.get(name))}".strip()
            for name in names
        ]
        rows.append([run.name, "" if loss is None else number(loss), *values])
    for name, metrics in runs[0].results[task].baselines.items():
        rows.append([name, "", *[number(metrics[metric]) for metric in names]])
    return _table(head, rows)


def _scoring(result: Result) -> str:
    """How a result was scored, and on which images."""
    without = f" (without {', '.join(result.skipped)})" if result.skipped else ""
    return (
        f"{result.data}, {result.protocol}, {result.n} images{without}, {result.sampler}, "
        f"{result.nfe} NFE x {result.members} members"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines
    )
