"""The default run: scores, another world, claims, and its sweeps over calls and members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from page_numbers import common
from page_numbers.common import LABELS, MAIN, figures, percent, rows_of, table
from stepsight.results import Result

CALLS = (1, 2, 4, 8)


def setting(result: Result) -> str:
    views = "" if result.views == "none" else f", {result.views}"
    return f"{result.nfe} x {result.members}, T {result.temperature:g}{views}"


def runs_of(name: str) -> list[list[Result]]:
    """The results of several runs."""
    return [[Result.of(row) for row in run] for run in json.loads((common.DATA / name).read_text())]


def default() -> str:
    """The default run's results, both seeds, beside the trivial predictors."""
    header = ["task", "protocol", "setting", "seed 0", "seed 1", "trivial predictors", "ratio"]
    rows, runs = [], runs_of("default-results.json")
    for task, metric in MAIN.items():
        first, second = (next(one for one in run if one.task == task) for run in runs)
        trivial = {name: x[metric] for name, x in first.baselines.items() if metric in x}
        ratios = (first.ratios[name] for name in trivial)
        rows.append(
            [
                task,
                first.protocol.partition("@")[0],
                setting(first),
                f"{LABELS[metric]} **{figures(first.metrics[metric])}** {_interval(first, metric)}",
                f"{figures(second.metrics[metric])} {_interval(second, metric)}",
                ", ".join(f"{name.replace('_', ' ')} {figures(x)}" for name, x in trivial.items()),
                ", ".join(f"{x.ratio:.2f} [{x.lo:.2f}, {x.hi:.2f}]" for x in ratios),
            ]
        )
    return table(header, rows)


def world() -> str:
    """The same checkpoints on a world that no choice of the recipe saw."""
    rows, runs = [], runs_of("other-world-results.json")
    for task, metric in MAIN.items():
        results = [next(one for one in run if one.task == task) for run in runs]
        shown = [f"{figures(one.metrics[metric])} {_interval(one, metric)}" for one in results]
        rows.append([task, LABELS[metric], *shown])
    return table(["task", "metric", "seed 0", "seed 1"], rows)


def _interval(result: Result, metric: str) -> str:
    lo, hi = result.intervals[metric]
    return f"[{figures(lo)}, {figures(hi)}]"


def claims() -> str:
    """What the engine says of one member from zeros with mirrored views; both statements of 4 to 8
    calls."""
    rows = []
    for claim in json.loads((common.DATA / "zero-seed-0" / "claims.json").read_text()):
        steps = claim["base"]["nfe"], claim["other"]["nfe"]
        wanted = claim["main"] and claim["views"] == "mirror" and steps in ((1, 4), (4, 8))
        if wanted and not claim["statement"].startswith("the best setting"):
            calls, metric = f"{steps[0]} to {steps[1]}", LABELS[claim["metric"]]
            rows.append([claim["task"], calls, metric, claim["averaging"], *_decided(claim)])
    header = ["task", "calls", "metric", "averaging", "change [95 %]", "claim"]
    return table(header, rows)


def proper() -> str:
    """Claims on the proper scores: more calls given 8 members, more members given calls."""
    rows = []
    for claim in json.loads((common.DATA / "noise-seed-0" / "claims.json").read_text()):
        calls = claim["statement"] == "more calls help" and claim["base"]["members"] == 8
        members = claim["statement"] == "more members help"
        members = members and (claim["main"] or claim["base"]["nfe"] in (1, 4))
        if claim["temperature"] > 0 and (calls or members):
            sides = (claim["base"], claim["other"])
            change = " to ".join(f"{side['nfe']} x {side['members']}" for side in sides)
            metric = LABELS.get(claim["metric"], claim["metric"])
            rows.append([claim["task"], metric, change, *_decided(claim)])
    return table(["task", "metric", "calls x members", "change [95 %]", "claim"], rows)


def _decided(claim: dict[str, Any]) -> tuple[str, str]:
    """The change with its interval, and the verdict."""
    value, lo, hi = (percent(claim[name]) for name in ("value", "lo", "hi"))
    return f"{value} [{lo}, {hi}]", f"{claim['statement']}: {claim['verdict']}"


def calls() -> str:
    """One member from zeros over the calls, with and without views; both seeds."""
    header = ["seed", "views", "calls", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for seed in (0, 1):
        cells = rows_of(f"zero-seed-{seed}/sweep.csv")
        for views in ("none", "mirror"):
            for nfe in CALLS:
                values = [_cell(cells, task, views, nfe, 1, 0.0) for task in MAIN]
                rows.append([str(seed), views, str(nfe), *values])
    return table(header, rows)


def members() -> str:
    """Members from noise over calls and members."""
    cells = rows_of("noise-seed-0/sweep.csv")
    header = ["calls x members", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for nfe in CALLS:
        for count in (1, 8):
            values = [_cell(cells, task, "none", nfe, count, 1.0) for task in MAIN]
            rows.append([f"{nfe} x {count}", *values])
    return table(header, rows)


def _cell(
    cells: Sequence[dict[str, str]], task: str, views: str, nfe: int, count: int, t: float
) -> str:
    (cell,) = (
        cell
        for cell in cells
        if (cell["task"], cell["metric"], cell["views"]) == (task, MAIN[task], views)
        and (int(cell["nfe"]), int(cell["members"]), float(cell["temperature"])) == (nfe, count, t)
    )
    value, lo, hi = (figures(float(cell[name])) for name in ("value", "lo", "hi"))
    return f"{value} [{lo}, {hi}]"
