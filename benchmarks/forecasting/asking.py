"""Ask the analysis as a user would: points in, a verdict and forecasts out, and keep the score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from stepsight.scaling.fitting.quality import Expected
from stepsight.scaling.laws.averaging import average
from stepsight.scaling.laws.fits import compare, fit

AVERAGE = "average"  # of the forms that are compared by default; any other way is one form
LEVEL = 0.9
Array = np.ndarray


class Answer(Protocol):
    """A fit, or an average of fits."""

    @property
    def verdict(self) -> str: ...

    def forecast(self, at: Any, level: float) -> Expected: ...


@dataclass(frozen=True)
class Points:
    """What was measured: `x` "n d", `y` "n", and the run of each point where runs share points."""

    x: Array
    y: Array
    groups: Sequence[Hashable] | None = None

    def where(self, kept: Array) -> Points:
        """Those of a mask, "n"."""
        groups = self.groups
        labels = None if groups is None else [label for label, keep in zip(groups, kept) if keep]
        return Points(self.x[kept], self.y[kept], labels)


def asked(points: Points, way: str) -> Answer:
    """The law that one form, or the average of forms, makes of the points."""
    x = points.x[:, 0] if points.x.shape[1] == 1 else points.x
    if way == AVERAGE:
        return average(compare(x, points.y, groups=points.groups))
    return fit(way, x, points.y, groups=points.groups)


def forecast(answer: Answer, place: Array, level: float = LEVEL) -> Expected:
    """At `place`, "d"."""
    return answer.forecast(float(place[0]) if len(place) == 1 else tuple(place), level)


@dataclass
class Score:
    """Intervals that held, of all and of those beside a law, and how wide and how far off."""

    verdicts: Counter[str] = field(default_factory=Counter)  # of forecasts
    held: list[bool] = field(default_factory=list)
    law: list[bool] = field(default_factory=list)
    width: list[float] = field(default_factory=list)  # half of log(hi / lo); inf where lo is 0
    error: list[float] = field(default_factory=list)  # log(forecast / outcome)
    reach: float = 0.0  # the farthest, by the largest place that was seen

    def add(self, verdict: str, expected: Expected, outcome: float) -> None:
        self.verdicts[verdict] += 1
        self.law.append(verdict == "law")
        self.held.append(bool(expected.lo <= outcome <= expected.hi))
        self.error.append(float(np.log(expected.value / outcome)))
        known, bounded = expected.hi >= expected.lo, expected.lo > 0
        width = np.log(expected.hi / expected.lo) / 2 if known and bounded else np.inf
        self.width.append(float(width) if known else np.nan)

    def join(self, other: Score) -> None:
        self.verdicts += other.verdicts
        for name in ("held", "law", "width", "error"):
            getattr(self, name).extend(getattr(other, name))
        self.reach = max(self.reach, other.reach)

    def row(self) -> dict[str, Any]:
        """Shares and medians; None where there was nothing to take them of."""
        held, law = np.array(self.held, bool), np.array(self.law, bool)
        return {
            "of": len(held),
            "hits": int(held.sum()),
            "laws": int(law.sum()),
            "law_hits": int(held[law].sum()),
            "half_width": _median(self.width),  # None where most have no lower end
            "bias": _median(self.error),
            "verdicts": dict(self.verdicts.most_common()),
        } | ({"reach": round(self.reach, 3)} if self.reach else {})


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    middle = float(np.expm1(np.median(known))) if known else np.nan
    return round(middle, 4) if np.isfinite(middle) else None


def hidden(points: Points, along: Array, origin: float, way: str) -> Score:
    """Hide the points beyond `origin` in `along`, "n", and forecast each from the others."""
    seen, score = along <= origin, Score(reach=float(along.max() / along[along <= origin].max()))
    answer = asked(points.where(seen), way)
    for place, outcome in zip(points.x[~seen], points.y[~seen]):
        score.add(answer.verdict, forecast(answer, place), float(outcome))
    return score
