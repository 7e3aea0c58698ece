"""What strategies for spending the same calls reach, and whether they beat each other.

Adaptive budgets (`pipeline.adaptive`) need no more predictions than the ensembles of fixed size:
which size each image would have had follows from their standard errors, in hindsight. Comparisons
are paired by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.evaluation import statistics
from stepsight.measures import headline, main_metric, measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.scaling.intervals import Interval

Comparison = Literal["wins", "loses", "undecided"]


@dataclass(frozen=True)
class StrategyScores:
    """A strategy, what it may spend on an image, and its scores image by image."""

    name: str
    nfe: int  # calls per member
    members: int  # to choose from, or merged
    calls: int  # per image at most, evidence included
    rows: Rows
    baseline: str = ""  # the strategy it is compared with
    errors: Tensor | None = None  # standard errors "n" of a merge, see `pipeline.adaptive`
    spent: Tensor | None = None  # calls "n" where images differ


@dataclass(frozen=True)
class StrategyRow:
    """A row of strategies.csv: a strategy in one metric, with 95 % bootstrap intervals."""

    task: str
    strategy: str
    nfe: int
    members: int
    total_calls: int
    mean_calls: float
    metric: str
    value: float
    lo: float
    hi: float
    baseline: str
    difference: float | Literal[""] = ""  # value / baseline's value - 1, paired by image;
    difference_lo: float | Literal[""] = ""  # without a baseline nothing
    difference_hi: float | Literal[""] = ""
    verdict: Comparison | Literal[""] = ""
    images: int = 0


def joined(parts: Sequence[StrategyScores]) -> StrategyScores:
    """The scores of a strategy on several batches, together."""
    rows = statistics.concatenated([part.rows for part in parts])
    errors = [part.errors for part in parts if part.errors is not None]
    return replace(parts[0], rows=rows, errors=torch.cat(errors) if errors else None)


def chosen(rows: Rows, picks: Tensor) -> Rows:
    """Of candidates "e b ..." what each image picked, `picks` int64 "b"."""
    images = torch.arange(len(picks))
    return {name: value[picks.cpu(), images] for name, value in rows.items()}


def oracle(rows: Rows, task: str, protocol: Protocol) -> Tensor:
    """The best candidate "b" of rows "e b ..." by the main metric, which takes the truth."""
    each = [{name: value[e] for name, value in rows.items()} for e in range(len(rows["n"]))]
    metric = main_metric(task, statistics.measured(each[0]), protocol.metrics)
    assert metric is not None, task
    values = np.stack([statistics.per_image(candidate, metric) for candidate in each])
    sign = -1 if measure(metric).higher_is_better else 1
    return torch.from_numpy(np.nan_to_num(sign * values, nan=np.inf).argmin(axis=0))


def adaptive(fixed: Sequence[StrategyScores]) -> Iterator[StrategyScores]:
    """Adaptive budgets from merges of growing size, the rounds. None below three rounds.

    `adaptive` has the mean cost of the last round but one, its baseline. The tolerance is that of
    the even images for the odd ones and conversely, so no image is judged by its own choice.
    `adaptive_at_<tolerance>` uses one tolerance, which keeps to that cost over all images, and is
    compared with the largest ensemble: what saving the rest of the calls costs.
    """
    images = len(fixed[0].rows["n"])
    if len(fixed) < 3 or images < 2:
        return
    errors = torch.stack([merge.errors for merge in fixed if merge.errors is not None])
    counts, usual = [merge.members for merge in fixed], fixed[-2]
    odd = torch.arange(images) % 2 == 1
    picks = torch.empty(images, dtype=torch.long)
    for half in (odd, ~odd):
        tolerance = calibrated(errors[:, ~half], counts, usual.members)
        picks[half] = rounds_spent(errors[:, half], tolerance)
    yield _by_round("adaptive", fixed, picks, usual)
    tolerance = float(f"{calibrated(errors, counts, usual.members):.2g}")
    picks = rounds_spent(errors, tolerance)
    yield _by_round(f"adaptive_at_{tolerance:g}", fixed, picks, fixed[-1])


def rounds_spent(errors: Tensor, tolerance: float) -> Tensor:
    """The round after which each image is done, int64 "n", from 0, given its standard error after
    every round, `errors` "r n"."""
    enough = errors <= tolerance
    enough[-1] = True
    return enough.int().argmax(dim=0)


def calibrated(errors: Tensor, counts: Sequence[int], mean_members: float) -> float:
    """The least tolerance at which images spend at most `mean_members` on average.

    errors: standard errors "r n" after each round, counts: members after each round. Raises
    UserError where even the first round spends more.
    """
    if mean_members < counts[0]:
        raise UserError(
            f"{mean_members:g} members on average, but an image starts with {counts[0]}."
        )
    spending = torch.tensor(counts, dtype=torch.float64)
    known = [0.0, *errors[:-1].flatten().sort().values.tolist()]
    means = (spending[rounds_spent(errors, tolerance)].mean() for tolerance in known)
    return next(tolerance for tolerance, mean in zip(known, means) if mean <= mean_members)


def _by_round(
    name: str, fixed: Sequence[StrategyScores], picks: Tensor, usual: StrategyScores
) -> StrategyScores:
    rows = chosen(statistics.stacked([merge.rows for merge in fixed]), picks)
    spent = torch.tensor([merge.calls for merge in fixed])[picks]
    return replace(fixed[-1], name=name, rows=rows, baseline=usual.name, errors=None, spent=spent)


def table(task: str, strategies: Sequence[StrategyScores], protocol: Protocol) -> list[StrategyRow]:
    """The rows of strategies.csv: every strategy in every main metric."""
    by_name = {strategy.name: strategy for strategy in strategies}
    metrics = headline(task, statistics.measured(strategies[0].rows), protocol.metrics)
    return [
        _row(task, strategy, by_name.get(strategy.baseline), metric, protocol)
        for strategy in strategies
        for metric in metrics
    ]


def _row(
    task: str,
    strategy: StrategyScores,
    base: StrategyScores | None,
    metric: str,
    protocol: Protocol,
) -> StrategyRow:
    value, compared = statistics.interval(strategy.rows, metric, protocol), {}
    if base is not None:
        ratio = statistics.ratio(strategy.rows, base.rows, metric, protocol)
        change = relative(ratio, statistics.interval(base.rows, metric, protocol).value)
        compared = {
            "difference": change.value,
            "difference_lo": change.lo,
            "difference_hi": change.hi,
            "verdict": comparison(change, measure(metric).higher_is_better),
        }
    spent = strategy.calls if strategy.spent is None else strategy.spent.double().mean().item()
    return StrategyRow(
        task,
        strategy=strategy.name,
        nfe=strategy.nfe,
        members=strategy.members,
        total_calls=strategy.calls,
        mean_calls=spent,
        metric=metric,
        value=value.value,
        lo=value.lo,
        hi=value.hi,
        baseline=strategy.baseline,
        **compared,
        images=len(strategy.rows["n"]),
    )


def relative(ratio: Interval, base: float) -> Interval:
    """The change from a baseline over its size, from the ratio to it: of negative metrics, larger
    ratios are smaller values."""
    if base < 0:
        return replace(ratio, value=1 - ratio.value, lo=1 - ratio.hi, hi=1 - ratio.lo)
    return replace(ratio, value=ratio.value - 1, lo=ratio.lo - 1, hi=ratio.hi - 1)


def comparison(change: Interval, higher_is_better: bool) -> Comparison:
    """Whether the interval of a change from the baseline lies on one side of 0."""
    above, below = change.lo > 0, change.hi < 0
    if above or below:
        return "wins" if above == higher_is_better else "loses"
    return "undecided"
