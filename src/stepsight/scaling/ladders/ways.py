"""The two ways from the rungs of a ladder to a number that a larger run should reach.

Direct: a law of the number itself in parameters and images. Two steps: a law of the loss, and what
the metric is at a loss (as for language models: Gadre et al. 2024, arXiv:2403.08540; Bhagia et al.
2024, arXiv:2412.04403). The loss is smooth where a metric is not, and the second step is from
rungs that may be of any size. Which way is taken is decided by what both would have said of the
ladder's own largest rungs, and the misses there widen the interval, on the side where they were.
All laws are averages over forms.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import VERDICTS, Expected, Verdict
from stepsight.scaling.intervals import PREDICTIVE, half_width, tails
from stepsight.scaling.laws.averaging import Averaged, average
from stepsight.scaling.laws.fits import compare

INPUTS = ("params", "images")
INVERSE = "1 / loss"  # what the second step is a law in: it grows where the loss falls
FEWEST = 5  # distinct places along an axis, of which the top two can be hidden
TOP = 3  # one in so many points is hidden along parameters x images
NONE: Verdict = "too few points"


@dataclass(frozen=True)
class RungPoints:
    """What the rungs of a ladder reached."""

    x: Array  # active parameters and images seen, "n 2"
    errors: Array  # "n"
    losses: Array | None  # of the same checkpoints; None where there are none, or they are errors
    groups: tuple[Hashable, ...]  # what shares its luck: runs, or the trunk that branches left

    def only(self, kept: NDArray[np.bool_]) -> RungPoints:
        losses = None if self.losses is None else self.losses[kept]
        groups = tuple(label for label, keep in zip(self.groups, kept) if keep)
        return RungPoints(self.x[kept], self.errors[kept], losses, groups)

    @property
    def scatter(self) -> float:
        """Standard deviation of log errors between runs of one place, such as seeds; 0 where no
        place has two."""
        replicates: dict[Hashable, list[float]] = defaultdict(list)
        for place, error in zip(self.x.tolist(), np.log(self.errors).tolist()):
            replicates[tuple(place)].append(error)
        squares = sum(len(found) * float(np.var(found)) for found in replicates.values())
        spare = sum(len(found) - 1 for found in replicates.values())
        return math.sqrt(squares / spare) if spare else 0.0


@dataclass(frozen=True)
class DirectWay:
    """A law of the errors."""

    law: Averaged
    name: str = "direct law"

    @property
    def form(self) -> str:
        return self.law.form

    @property
    def formula(self) -> str:
        return self.law.formula

    @property
    def verdict(self) -> Verdict:
        return self.law.verdict

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.law.warnings

    def forecast(self, at: Array, level: float = PREDICTIVE) -> Expected:
        """The error of a new run at parameters and images `at` "2"."""
        return self.law.forecast(at, level)


@dataclass(frozen=True)
class TwoSteps:
    """A law of the losses, and one of the errors at a loss."""

    loss: Averaged
    error: Averaged
    name: str = "two steps, loss law and error at a loss"

    @property
    def form(self) -> str:
        return f"two steps: {self.loss.form}; {self.error.form}"

    @property
    def formula(self) -> str:
        return f"{self.loss.formula}; x = {INVERSE}: {self.error.formula}"

    @property
    def verdict(self) -> Verdict:
        """Of the step that is less of a law."""
        return VERDICTS[min(map(VERDICTS.index, (self.loss.verdict, self.error.verdict)))]

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.loss.warnings, *self.error.warnings)

    def forecast(self, at: Array, level: float = PREDICTIVE) -> Expected:
        """The error of a new run; what is unsure about its loss and about the error at that loss
        adds up in squares."""
        loss = self.loss.forecast(at, level)
        error = self.error.forecast(1 / loss.value, level)
        carried = [self.error.forecast(1 / end, level).value for end in (loss.lo, loss.hi)]
        below, above = (
            math.hypot(*(math.log(end / error.value) for end in ends))
            for ends in ((carried[0], error.lo), (carried[1], error.hi))
        )
        lo, hi = error.value * math.exp(-below), error.value * math.exp(above)
        warnings = tuple(dict.fromkeys((*loss.warnings, *error.warnings)))
        return Expected(error.value, lo, hi, level, warnings, loss.reach, loss.basis)


Way = DirectWay | TwoSteps


class Rehearsal(NamedTuple):
    """What a way said of rungs that were hidden from it."""

    hits: int  # intervals that held
    of: int
    reach: float  # of the farthest, by parameters x images
    error: float  # median of |log error|
    below: float  # factors on the log intervals, 1 or more, with which they would have held as many
    above: float  # as they should

    @property
    def beyond(self) -> bool:
        """Whether hidden rungs lay beyond those that were seen, as a target does."""
        return self.reach > 1

    def limits(self, level: float) -> Iterator[str]:
        """What it does not say about a target."""
        if not self.beyond:
            yield "no rung beyond the rest could be hidden"
        if _rank(self.of, level) > self.of:
            yield f"the widest of {self.of} misses stands in for the quantile that widens it"


class HiddenRung(NamedTuple):
    """An outcome beside what was said of it; in logs, over the forecast."""

    outcome: float
    lo: float
    hi: float
    reach: float  # its parameters x images, over the largest that were seen


class Ways:
    """Fits the ways to points; laws of losses are shared among the metrics of a task."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Averaged] = {}

    def best(self, points: RungPoints, level: float = PREDICTIVE) -> tuple[Way, Rehearsal | None]:
        """The way that erred less on hidden rungs, and how it did; None where none can be hidden.

        Without losses, or with too few rungs to hide any, it is the direct law.
        """
        offered = self._ways(points)
        trials: list[list[HiddenRung]] = [[] for _ in offered]
        for hidden in _hidden(points.x):
            ways = self._ways(points.only(~hidden))
            if len(ways) < len(offered) or any(way.verdict == NONE for way in ways):
                continue
            for way, rows in zip(ways, trials):
                rows += _said(way, points, hidden, level)
        if not trials[0]:
            return offered[0], None
        rehearsed = [_rehearsal(rows, level) for rows in trials]
        chosen = min(range(len(offered)), key=lambda i: rehearsed[i].error)
        return offered[chosen], rehearsed[chosen]

    def _ways(self, points: RungPoints) -> list[Way]:
        ways: list[Way] = [DirectWay(self._law(points.x, points.errors, points.groups))]
        if points.losses is not None and ways[0].verdict != NONE:
            loss = self._law(points.x, points.losses, points.groups)
            options = {"groups": points.groups, "inputs": [INVERSE], "bootstrap": 0}
            error = average(compare(1 / points.losses, points.errors, **options))
            ways += [] if NONE in (loss.verdict, error.verdict) else [TwoSteps(loss, error)]
        return ways

    def _law(self, x: Array, y: Array, groups: Sequence[Hashable]) -> Averaged:
        key = (x.tobytes(), y.tobytes())
        if key not in self._known:
            fits = compare(x, y, inputs=INPUTS, groups=groups, bootstrap=0)
            self._known[key] = average(fits)
        return self._known[key]


def honest(expected: Expected, scatter: float, rehearsal: Rehearsal | None = None) -> Expected:
    """The interval, widened by what was missed in rehearsal, and never narrower than measurements
    of one place scatter (a standard deviation of logs)."""
    least = half_width(expected.level) * scatter
    sides = (rehearsal.below, rehearsal.above) if rehearsal else (1.0, 1.0)
    below, above = (
        max(side * abs(math.log(end / expected.value)), least)
        for side, end in zip(sides, (expected.lo, expected.hi))
    )
    lo, hi = expected.value * math.exp(-below), expected.value * math.exp(above)
    return replace(expected, lo=lo, hi=hi)


def _hidden(x: Array) -> Iterator[NDArray[np.bool_]]:
    """Rungs to hide, "n" each: the two largest sizes, the two longest amounts, and the third of the
    points with the largest product of both."""
    for along in x.T:
        places = np.unique(along)
        if len(places) >= FEWEST:
            yield along >= places[-2]
    product = x.prod(axis=1)
    if len(product) >= TOP:
        yield product >= np.sort(product)[-(len(product) // TOP)]


def _said(
    way: Way, points: RungPoints, hidden: NDArray[np.bool_], level: float
) -> Iterator[HiddenRung]:
    """What a way that has not seen them says of the hidden rungs."""
    kept = points.only(~hidden)
    farthest = kept.x.prod(axis=1).max()
    for at, outcome in zip(points.x[hidden], points.errors[hidden].tolist()):
        said = honest(way.forecast(at, level), kept.scatter)
        off, lo, hi = (math.log(end / said.value) for end in (outcome, said.lo, said.hi))
        yield HiddenRung(off, lo, hi, float(at.prod() / farthest))


def _rehearsal(rungs: Sequence[HiddenRung], level: float) -> Rehearsal:
    off, lo, hi, reach = np.array(rungs).T
    return Rehearsal(
        hits=int(np.sum((lo <= off) & (off <= hi))),
        of=len(off),
        reach=float(reach.max()),
        error=float(np.median(np.abs(off))),
        below=_factor(off / lo, level),
        above=_factor(off / hi, level),
    )


def _factor(scores: Array, level: float) -> float:
    """Split conformal: the quantile of the scores that a new one exceeds as rarely as it should on
    one side of an interval (Lei et al. 2018, J. Am. Stat. Assoc. 113:1094)."""
    rank = min(_rank(len(scores), level), len(scores))
    return max(1.0, float(np.sort(scores)[rank - 1]))


def _rank(scores: int, level: float) -> int:
    """Which of so many scores, in order, is the quantile; of too few, one beyond them."""
    return math.ceil((scores + 1) * tails(level)[1])
