"""Runs side by side: what each cost, its validation loss and its scores, for every task.

Scores share a column only if they have the same data, protocol, sampler, NFE, members and images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepsight import checkpoint
from stepsight.errors import UserError
from stepsight.measures import headline, measure, number


@dataclass(frozen=True)
class Run:
    """What is compared of a run folder."""

    name: str
    model: str
    images: int
    flops: float  # of its own training
    inherited: float  # of the runs whose weights it started from
    losses: dict[str, float]  # validation loss by task, of the weights that were scored
    results: dict[str, dict[str, Any]]  # by task, eval/results.json under its first protocol


def read_run(path: Path) -> Run:
    """A finished run. Raises UserError if it has no checkpoint or was not evaluated."""
    saved = checkpoint.read(path, prefer="last")
    scores = path / "eval" / "results.json"
    if not scores.is_file():
        raise UserError(f"{scores} not found: run `uv run evaluate.py --checkpoint {path}` first.")
    return Run(
        name=path.name,
        model=saved.config.model.name,
        images=saved.meta["images_seen"],
        flops=saved.meta["training_flops"],
        inherited=saved.meta.get("inherited_flops", 0.0),
        losses=checkpoint.read(path).meta["losses"],
        results={one["task"]: one for one in reversed(json.loads(scores.read_text()))},
    )


def compare(runs: Sequence[Run]) -> str:
    """Markdown: a table of costs, then one a task and way of scoring."""
    costs = [
        [
            run.name,
            run.model,
            f"{run.images:,}",
            f"{run.flops / 1e15:.3f}",
            f"{run.inherited / 1e15:.3f}",
            f"{(run.flops + run.inherited) / 1e15:.3f}",
        ]
        for run in runs
    ]
    head = ["run", "model", "images", "PFLOP", "PFLOP before", "PFLOP in all"]
    tables = [_table(head, costs)]
    for task in dict.fromkeys(task for run in runs for task in run.results):
        ways = dict.fromkeys(_way(run.results[task]) for run in runs if task in run.results)
        for way in ways:
            own = [r for r in runs if task in r.results and _way(r.results[task]) == way]
            tables.append(f"{task}: {way}\n\n{_scores(task, own)}")
    return "\n\n".join(tables) + "\n"


def _scores(task: str, runs: Sequence[Run]) -> str:
    names = headline(task, runs[0].results[task]["metrics"])
    head = ["predictor", "validation loss", *[measure(name).label for name in names]]
    rows = []
    for run in runs:
        one, loss = run.results[task], run.losses.get(task)
        rows.append(
            [run.name, "" if loss is None else number(loss), *[_value(one, name) for name in names]]
        )
    for name, metrics in runs[0].results[task]["baselines"].items():
        rows.append([name, "", *[number(metrics[metric]) for metric in names]])
    return _table(head, rows)


def _way(one: dict[str, Any]) -> str:
    """How a result was scored."""
    return (
        f"{one['data']}, {one['protocol']}, {one['n']} images, {one['sampler']}, "
        f"{one['nfe']} NFE x {one['members']} members"
    )


def _value(one: dict[str, Any], metric: str) -> str:
    span = one["intervals"].get(metric)
    ends = f" [{number(span[0])}, {number(span[1])}]" if span else ""
    return number(one["metrics"][metric]) + ends


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines
    )
