"""What came of ways to spend the same calls, and whether they beat one another.

An `Outcome` is one strategy scored on some images. Adaptive budgets need no more predictions than
the ensembles of fixed size: which size each image would have got follows from their standard
errors. Comparisons are paired by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stepsight.evaluation.statistics import interval, measured, per_image, ratio
from stepsight.measures import headline, main_metric, measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.testtime.adaptive import calibrated, rounds_spent

COLUMNS = (
    "task,strategy,nfe,members,total_calls,mean_calls,metric,value,lo,hi,"
    "baseline,difference,difference_lo,difference_hi,verdict,images"
).split(",")
Verdict = Literal["wins", "loses", "undecided"]


@dataclass(frozen=True)
class Outcome:
    """A strategy, what it may spend on an image, and its scores image by image."""

    name: str
    nfe: int  # calls a member
    members: int  # to choose from, or merged
    calls: int  # an image at most, evidence included
    rows: Rows
    baseline: str = ""  # the strategy it is compared with
    errors: Tensor | None = None  # standard errors "n" of a merge, see `adaptive`
    spent: Tensor | None = None  # calls "n" where images differ


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of one strategy on several batches as one."""
    rows = {name: torch.cat([part.rows[name] for part in parts]) for name in parts[0].rows}
    errors = [part.errors for part in parts if part.errors is not None]
    return replace(parts[0], rows=rows, errors=torch.cat(errors) if errors else None)


def stacked(rows: Sequence[Rows]) -> Rows:
    """Rows of several candidates, "e b ..."."""
    return {name: torch.stack([one[name] for one in rows]) for name in rows[0]}


def chosen(rows: Rows, picks: Tensor) -> Rows:
    """Of candidates "e b ..." the one that each image picked, `picks` int64 "b"."""
    images = torch.arange(len(picks))
    return {name: value[picks.cpu(), images] for name, value in rows.items()}


def oracle(rows: Rows, task: str, rule: Protocol) -> Tensor:
    """The best candidate "b" of rows "e b ..." by the main metric, which takes the truth."""
    each = [{name: value[e] for name, value in rows.items()} for e in range(len(rows["n"]))]
    metric = main_metric(task, measured(each[0]), rule.metrics)
    assert metric is not None, task
    values = np.stack([per_image(one, metric) for one in each])
    sign = -1 if measure(metric).higher_is_better else 1
    return torch.from_numpy(np.nan_to_num(sign * values, nan=np.inf).argmin(axis=0))


def adaptive(fixed: Sequence[Outcome]) -> Iterator[Outcome]:
    """Adaptive budgets from merges of growing size, the rounds. None below three rounds.

    `adaptive` has the mean cost of the last round but one, its baseline. The tolerance is that of
    the even images for the odd ones and conversely, so no image is judged by its own choice.
    `adaptive_at_<tolerance>` uses one tolerance, which keeps to that cost over all images, and is
    compared with the largest ensemble: what saving the rest of the calls costs.
    """
    images = len(fixed[0].rows["n"])
    if len(fixed) < 3 or images < 2:
        return
    errors = torch.stack([one.errors for one in fixed if one.errors is not None])
    counts, usual = [one.members for one in fixed], fixed[-2]
    odd = torch.arange(images) % 2 == 1
    picks = torch.empty(images, dtype=torch.long)
    for half in (odd, ~odd):
        tolerance = calibrated(errors[:, ~half], counts, usual.members)
        picks[half] = rounds_spent(errors[:, half], tolerance)
    yield _by_round("adaptive", fixed, picks, usual)
    tolerance = float(f"{calibrated(errors, counts, usual.members):.2g}")
    picks = rounds_spent(errors, tolerance)
    yield _by_round(f"adaptive_at_{tolerance:g}", fixed, picks, fixed[-1])


def _by_round(name: str, fixed: Sequence[Outcome], picks: Tensor, usual: Outcome) -> Outcome:
    rows = chosen(stacked([one.rows for one in fixed]), picks)
    spent = torch.tensor([one.calls for one in fixed])[picks]
    return replace(fixed[-1], name=name, rows=rows, baseline=usual.name, errors=None, spent=spent)


def table(task: str, outcomes: Sequence[Outcome], rule: Protocol) -> list[dict[str, Any]]:
    """The rows of strategies.csv: every strategy in every main metric.

    difference: value / baseline's value - 1, with its 95 % bootstrap interval paired by image.
    """
    known = {one.name: one for one in outcomes}
    metrics = headline(task, measured(outcomes[0].rows), rule.metrics)
    return [
        _row(task, one, known.get(one.baseline), metric, rule)
        for one in outcomes
        for metric in metrics
    ]


def _row(
    task: str, one: Outcome, base: Outcome | None, metric: str, rule: Protocol
) -> dict[str, Any]:
    found = interval(one.rows, metric, rule)
    values = {
        "task": task,
        "strategy": one.name,
        "nfe": one.nfe,
        "members": one.members,
        "total_calls": one.calls,
        "mean_calls": one.calls if one.spent is None else one.spent.double().mean().item(),
        "metric": metric,
        "value": found.value,
        "lo": found.lo,
        "hi": found.hi,
        "baseline": one.baseline,
        "images": len(one.rows["n"]),
    }
    if base is not None:
        change = ratio(one.rows, base.rows, metric, rule)
        values |= {
            "difference": change["ratio"] - 1,
            "difference_lo": change["lo"] - 1,
            "difference_hi": change["hi"] - 1,
            "verdict": verdict(change, measure(metric).higher_is_better),
        }
    return {name: values.get(name, "") for name in COLUMNS}


def verdict(change: Mapping[str, float], higher_is_better: bool) -> Verdict:
    """Whether the interval of a ratio to the baseline lies on one side of 1."""
    above, below = change["lo"] > 1, change["hi"] < 1
    if above or below:
        return "wins" if above == higher_is_better else "loses"
    return "undecided"
