"""What the numbers of a run say, in words: is it better than trivial, and what to try next.

A run is compared with predictors that know nothing of the image. It beats one when the whole 95 %
interval of the ratio lies on the good side of 1; a better value whose interval reaches 1 is
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepsight.measures import main_metric, main_of, measure, number
from stepsight.report.run_folder import Row, RunFolder, series
from stepsight.scaling.sampling.frontier import FrontierCell
from stepsight.scaling.sampling.sweeps import temperature_text

Outcome = Literal["beaten", "undecided", "not beaten"]

NOTICEABLE = 0.02  # relative change that is worth a recommendation


@dataclass(frozen=True)
class Standing:
    """A score beside one trivial predictor."""

    task: str
    metric: str
    value: float
    baseline: str
    other: float
    outcome: Outcome
    ratio: tuple[float, float, float] | None  # value / other with its interval

    def __str__(self) -> str:
        label = measure(self.metric).label
        return f"{self.baseline} ({label} {number(self.value)} against {number(self.other)})"


def standings(row: Row) -> list[Standing]:
    """A results row or a validation row against each of its baselines, by the main metric."""
    metric = main_of(row)
    if metric is None:
        return []
    return [
        _standing(row, metric, name, values[metric])
        for name, values in (row.get("baselines") or {}).items()
        if not math.isnan(values.get(metric, math.nan))
    ]


def _standing(row: Row, metric: str, baseline: str, other: float) -> Standing:
    kind, value = measure(metric), row["metrics"][metric]
    measured = (row.get("ratios") or {}).get(baseline)
    ratio = None
    if measured and measured["metric"] == metric and not math.isnan(measured["lo"]):
        ratio = (measured["ratio"], measured["lo"], measured["hi"])
    outcome: Outcome = "beaten"
    if not kind.beats(value, other):
        outcome = "not beaten"
    elif ratio and not all(kind.beats(end, 1.0) for end in ratio[1:]):
        outcome = "undecided"
    return Standing(row["task"], metric, value, baseline, other, outcome, ratio)


def final_rows(run: RunFolder) -> list[Row]:
    """One row a task: its first evaluation, else its newest validation.

    Results with a label (such as scores on training frames) come second to those without.
    """
    found: dict[str, Row] = {}
    newest_first = sorted(run.val, key=lambda row: -row["images_seen"])
    for row in (*sorted(run.results, key=lambda row: bool(row.get("label"))), *newest_first):
        found.setdefault(row["task"], row)
    return list(found.values())


def verdict(run: RunFolder) -> str:
    """The run in one line."""
    rows = final_rows(run)
    compared = {row["task"]: found for row in rows if (found := standings(row))}
    if not compared:
        return "Nothing has been measured against a trivial predictor yet."
    labels = ", ".join(dict.fromkeys(row["label"] for row in rows if row.get("label")))
    where = f" Measured on {labels}." if labels else ""
    weakest = {task: _hardest(found) for task, found in compared.items()}
    missing = [
        f"{t} {_SHORT[one.outcome]} {one}" for t, one in weakest.items() if one.outcome in _SHORT
    ]
    if not missing:
        proof = "; ".join(f"{task} beats {one}" for task, one in weakest.items())
        return f"Better than every trivial predictor: {proof}.{where}"
    good = len(compared) - len(missing)
    return (
        f"{good} of {len(compared)} tasks beat every trivial predictor; "
        f"{'; '.join(missing)}.{where}"
    )


_SHORT = {"undecided": "is not clearly better than", "not beaten": "does not beat"}
_ORDER: tuple[Outcome, ...] = ("not beaten", "undecided", "beaten")


def _hardest(found: list[Standing]) -> Standing:
    """The baseline that comes out worst for us, and among equals the strongest."""
    sign = -1 if measure(found[0].metric).higher_is_better else 1
    return min(found, key=lambda s: (_ORDER.index(s.outcome), sign * s.other))


def next_steps(run: RunFolder) -> list[str]:
    """What to try next, each with the number that suggests it; most promising first."""
    steps = [*_longer(run), *_waiting(run), *_worsening(run), *_unbeaten(run), *_frontier(run)]
    if not run.results:
        steps.append(f"Not evaluated yet: uv run evaluate.py --checkpoint {run.path}")
    if not run.sweep.cells:
        steps.append(f"Dials not swept yet: uv run evaluate.py --checkpoint {run.path} --sweep")
    return steps


def _longer(run: RunFolder) -> Iterator[str]:
    fall = loss_fall(run.train)
    if fall > NOTICEABLE:
        yield (
            f"The training loss still fell by {fall:.0%} over the last quarter of the run: "
            f"train longer (--training.images {2 * run.train[-1]['images_seen']})."
        )


def loss_fall(rows: list[Row]) -> float:
    """Relative fall of the loss over the last quarter of the images, from the fitted line.

    The line is fitted to log loss, so single noisy intervals hardly matter; 0 when there are too
    few rows to tell.
    """
    points = np.array([(row["images_seen"], row["loss"]) for row in rows if row["loss"] > 0])
    late = points[points[:, 0] > 0.75 * points[-1, 0]] if len(points) else points
    if len(late) < 4:
        return 0.0
    slope = np.polyfit(late[:, 0], np.log(late[:, 1]), 1)[0]
    return float(1 - np.exp(slope * (late[-1, 0] - late[0, 0])))


def _waiting(run: RunFolder) -> Iterator[str]:
    share = np.mean([row.get("data_share") or 0.0 for row in run.train]) if run.train else 0.0
    if share > 0.2:
        yield f"The model waited for data {share:.0%} of the time: set a cache for the source."


def _worsening(run: RunFolder) -> Iterator[str]:
    for task in dict.fromkeys(row["task"] for row in run.val):
        lines = series([row for row in run.val if row["task"] == task])
        for (data, _, _), line in lines.items():
            metric = main_metric(task, line[0]["metrics"])
            if metric is None or len(line) < 3:
                continue
            kind, values = measure(metric), [row["metrics"][metric] for row in line]
            best = max(values) if kind.higher_is_better else min(values)
            if kind.beats(best, values[-1]) and abs(values[-1] - best) > 0.1 * abs(best):
                yield (
                    f"{task} on {data} was better earlier ({kind.label} {number(best)}, now "
                    f"{number(values[-1])}): use the best checkpoint, or more varied data."
                )


def _unbeaten(run: RunFolder) -> Iterator[str]:
    falling = loss_fall(run.train) > NOTICEABLE
    for row in final_rows(run):
        for standing in standings(row):
            if standing.outcome == "not beaten":
                dial = "longer training comes first" if falling else "try a larger model"
                share = f"a larger share of the batches (--tasks.{row['task']}.weight)"
                yield f"{row['task']} does not beat {standing}: {dial}, then {share}."


def _frontier(run: RunFolder) -> Iterator[str]:
    """For every task the frontier's next point: the first that costs more than the setting that was
    scored, unless what it adds may be luck."""
    spent = {row["task"]: (row.get("nfe") or 0) * row.get("members", 1) for row in final_rows(run)}
    for task in (one for one in run.sweep.tasks if spent.get(one)):
        points = run.sweep.frontier(task)
        dearer = [pair for pair in zip(points, points[1:]) if pair[1].cost > spent[task]]
        if dearer and _pays(dearer[0][1]):
            yield _offer(run, *dearer[0])


def _pays(point: FrontierCell) -> bool:
    """Whether what it adds is more than luck; without an interval, whether it is noticeable."""
    return point.gain_lo > 0 or (math.isnan(point.gain_lo) and point.gain > NOTICEABLE)


def _offer(run: RunFolder, before: FrontierCell, point: FrontierCell) -> str:
    cell, interval = point.cell, "its interval is not known"
    if math.isfinite(point.gain_lo):
        interval = f"95 % interval {point.gain_lo:.1%} to {point.gain_hi:.1%}"
    ways = {(one.sampler, one.spacing, one.schedule) for one in run.sweep.cells}
    named = f" --sampler {cell.sampler} --spacing {cell.spacing} --schedule {cell.schedule}"
    return (
        f"{cell.task}: {_setting(point)} improve {measure(cell.metric).label} by {point.gain:.1%} "
        f"({interval}) on {_setting(before)}: uv run evaluate.py --checkpoint {run.path} --task "
        f"{cell.task} --nfe {cell.nfe} --members {cell.members} --temperature "
        f"{temperature_text(cell.temperature)} --views {cell.views}{named if len(ways) > 1 else ''}"
    )


def _setting(point: FrontierCell) -> str:
    """Such as `8 calls (4 x 2, T 1)`."""
    cell, parts = point.cell, point.cell.family.parts
    start = ", ".join(part for part in parts[-2:] if part)
    return f"{cell.total_calls} calls ({cell.nfe} x {cell.members}, {start})"
