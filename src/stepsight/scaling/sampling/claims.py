"""What the numbers say about test-time compute: three statements, each decided per task.

    (1) more members help        at every NFE, the most members against one
    (2) more steps alone help    one member, the most model calls against the fewest
    (3) both together help       the most of both against one member at the fewest calls

Each is decided on differences paired by image. A 95 % bootstrap interval of the mean difference
on the right side of zero means it holds, on the wrong side that it fails; an interval that
contains zero leaves it undecided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from stepsight.scaling.intervals import RESAMPLES, Interval, paired_interval

Verdict = Literal["holds", "fails", "undecided"]
MEMBERS = "more members help"
STEPS = "more steps alone help"
BOTH = "both together help"


class ImageScore(NamedTuple):
    """One metric of one image under one test-time setting."""

    task: str
    metric: str
    nfe: int
    members: int
    key: str  # of the image
    value: float


class Setting(NamedTuple):
    """Where on the test-time grid."""

    nfe: int
    members: int

    def __str__(self) -> str:
        return f"{self.nfe}x{self.members}"


@dataclass(frozen=True)
class Comparison:
    """Two settings on the same images. Effects are relative to the mean of the base."""

    base: Setting
    other: Setting
    effect: float  # (mean(other) - mean(base)) / mean(base)
    lo: float
    hi: float
    n: int  # images
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A statement about one task, decided. The numbers are those of its weakest comparison."""

    task: str
    metric: str
    statement: str
    verdict: Verdict
    effect: float
    lo: float
    hi: float
    n: int
    sentence: str
    comparisons: tuple[Comparison, ...]


# One task and metric: setting -> image -> value.
_Grid = dict[Setting, dict[str, float]]


def decide(
    scores: Iterable[ImageScore],
    lower_is_better: Mapping[str, bool],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Claim]:
    """The three statements for every task and metric in `scores`, in order of appearance.

    `lower_is_better` says the direction of each metric.
    """
    grids: dict[tuple[str, str], _Grid] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        setting = Setting(score.nfe, score.members)
        grids[score.task, score.metric][setting][score.key] = score.value
    claims = []
    for (task, metric), grid in grids.items():
        lower = lower_is_better[metric]
        for statement, pairs in _pairs(grid).items():
            compared = [_compare(grid, *pair, lower, resamples, seed) for pair in pairs]
            claims.append(_claim(task, metric, statement, compared, lower))
    return claims


def _pairs(grid: _Grid) -> dict[str, list[tuple[Setting, Setting]]]:
    """What each statement compares, as (base, other); empty where the grid lacks a corner."""
    fewest, most = min(s.nfe for s in grid), max(s.nfe for s in grid)
    single = Setting(fewest, 1)
    members = {nfe: max(s.members for s in grid if s.nfe == nfe) for nfe in {s.nfe for s in grid}}
    wanted = {
        MEMBERS: [(Setting(nfe, 1), Setting(nfe, members[nfe])) for nfe in sorted(members)],
        STEPS: [(single, Setting(most, 1))],
        BOTH: [(single, Setting(most, members[most]))],
    }
    return {
        statement: [
            (base, other)
            for base, other in pairs
            if base in grid and other in grid and _is_more(statement, base, other)
        ]
        for statement, pairs in wanted.items()
    }


def _is_more(statement: str, base: Setting, other: Setting) -> bool:
    """Whether the pair spends more of what the statement speaks of."""
    more_steps, more_members = other.nfe > base.nfe, other.members > base.members
    return {MEMBERS: more_members, STEPS: more_steps, BOTH: more_steps and more_members}[statement]


def _compare(
    grid: _Grid, base: Setting, other: Setting, lower: bool, resamples: int, seed: int
) -> Comparison:
    keys = sorted(grid[base].keys() & grid[other].keys())
    before = np.array([grid[base][key] for key in keys], dtype=float)
    after = np.array([grid[other][key] for key in keys], dtype=float)
    change = paired_interval(after, before, resamples=resamples, seed=seed)
    paired = np.isfinite(before) & np.isfinite(after)
    scale = abs(float(before[paired].mean())) if paired.any() else np.nan
    effect, lo, hi = (end / (scale or np.nan) for end in (change.value, change.lo, change.hi))
    return Comparison(base, other, effect, lo, hi, change.n, _verdict(change, lower))


def _verdict(change: Interval, lower: bool) -> Verdict:
    improves, worsens = change.hi < 0, change.lo > 0
    if not lower:
        improves, worsens = worsens, improves
    return "holds" if improves else "fails" if worsens else "undecided"


def _claim(
    task: str, metric: str, statement: str, compared: list[Comparison], lower: bool
) -> Claim:
    """A statement holds when all its comparisons do; the weakest one speaks for it."""
    if not compared:
        sentence = f"{task}: not measured whether {statement}; the grid lacks settings to compare."
        nan = float("nan")
        return Claim(task, metric, statement, "undecided", nan, nan, nan, 0, sentence, ())
    rank = {"fails": 0, "undecided": 1, "holds": 2}
    sign = -1 if lower else 1
    weakest = min(compared, key=lambda c: (rank[c.verdict], sign * c.effect))
    return Claim(
        task,
        metric,
        statement,
        weakest.verdict,
        weakest.effect,
        weakest.lo,
        weakest.hi,
        weakest.n,
        _sentence(task, metric, statement, weakest, len(compared)),
        tuple(compared),
    )


def _sentence(task: str, metric: str, statement: str, weakest: Comparison, compared: int) -> str:
    if weakest.n < 2:
        return f"{task}: too few images ({weakest.n}) to decide whether {statement}."
    opening = {
        "holds": f"{task}: {statement}",
        "fails": f"{task}: it is not so that {statement}",
        "undecided": f"{task}: undecided whether {statement}",
    }[weakest.verdict]
    scope = f", at the weakest of {compared} NFEs" if compared > 1 else ""
    return (
        f"{opening}: {metric} changes by {weakest.effect:+.1%} "
        f"(95 % interval {weakest.lo:+.1%} to {weakest.hi:+.1%}, {weakest.n} images) "
        f"from {weakest.base} to {weakest.other} NFE x members{scope}."
    )
