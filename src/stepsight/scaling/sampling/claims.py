"""What the numbers say about test-time compute: claims, each decided per task and metric.

What is claimed stands in `questions`. All are paired by image, on the metric as its protocol
averages it (`paired`). `value` is the change relative to the base as the metric has it, so that it
is negative for an error that falls.

Claims of one task and metric are corrected together (Holm 1979) over all temperatures, views, calls
and members of one way of sampling, that is of one checkpoint, size, sampler, spacing, schedule and
merge. A claim holds or fails where its corrected one-sided p is at most `ALPHA`, 2.5 % on either
side and so 5 % in all. Fewer than `MIN_IMAGES` images decide nothing.

A sampler that fails the `audit` makes no claims: what it gains over calls is recovery from a bad
first call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.audit import audit
from stepsight.scaling.sampling.paired import (
    ALPHA,
    MIN_IMAGES,
    Averaged,
    FamilySetting,
    MetricTable,
    PairedChange,
)
from stepsight.scaling.sampling.questions import Question, questions
from stepsight.scaling.sampling.sweeps import Family, differing, temperature_text
from stepsight.scaling.sampling.wording import Decision, sentence


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about one task and metric, decided."""

    task: str
    metric: str
    averaging: Averaged
    main: bool  # the metric the task is judged by
    statement: str
    given: str  # what both sides share
    cost: int  # model calls an image of the better-paid side
    base_cost: int
    base: FamilySetting
    other: FamilySetting
    value: float  # (other - base) / |base|
    lo: float  # 95 % interval, as it is without the correction
    hi: float
    n: int  # images
    p: float  # one-sided
    p_holm: float  # corrected
    verdict: Decision
    sentence: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Claim:
        """The claim of a row of claims.json (`to_dict`). Raises KeyError for what it lacks."""
        values: dict[str, Any] = {
            f.name: math.nan if row[f.name] is None else row[f.name] for f in fields(cls)
        }
        family = Family.of(row)
        values |= {name: _place(family, row[name]) for name in ("base", "other")}
        return cls(**values)

    @property
    def change(self) -> str:
        """From which NFE x members to which it goes, and what else differs."""
        old, new = _columns(self.base), _columns(self.other)
        starts = [f", {k} {new[k]}" for k in ("temperature", "views") if old[k] != new[k]]
        sides = (f"{side.nfe}x{side.members}" for side in (self.base, self.other))
        return " → ".join(sides) + "".join(starts)

    @property
    def variant(self) -> str:
        """How both sides sample besides: all but temperature and views."""
        return " ".join(part for part in self.other.family.parts[:-2] if part)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the columns of the family of the better-paid side are part of the row."""
        row = asdict(self) | {"base": _columns(self.base), "other": _columns(self.other)}
        family = self.other.family
        return plain(row | family._asdict() | {"temperature": self.other.temperature})


def decide(tables: Sequence[MetricTable]) -> list[Claim]:
    """The claims of every task and metric in `tables`, way by way, in order of appearance."""
    broken = audit(tables)
    claims = []
    for (task, _, own_way), together in _groups(tables).items():
        ways = dict.fromkeys(way(table.family) for table in tables if table.task == task)
        name = differing(ways)[own_way]
        claims += _decided(together, broken, f"[{name}] " if name else "")
    return claims


def way(family: Family) -> Family:
    """A family whatever its temperature and views: claims of one way are corrected together."""
    return family._replace(temperature="", views="none")


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in their order."""
    corrected, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = running
    return corrected


def _groups(tables: Iterable[MetricTable]) -> dict[tuple[str, str, Family], list[MetricTable]]:
    groups: dict[tuple[str, str, Family], list[MetricTable]] = {}
    for table in tables:
        groups.setdefault((table.task, table.metric, way(table.family)), []).append(table)
    return groups


def _decided(
    tables: Sequence[MetricTable], broken: Mapping[tuple[str, Family], str], label: str
) -> Iterator[Claim]:
    """The claims of one task, metric and way, corrected together."""
    ill = {table.family for table in tables if (table.task, table.family) in broken}
    asked = list(questions(tables, ill))
    sound = [question for question in asked if question.other.family not in ill]
    corrected = iter(holm([question.change.p for question in sound]))
    for question in asked:
        cause = broken.get((tables[0].task, question.other.family), "")
        p = math.nan if cause else next(corrected)
        verdict: Decision = "broken sampler" if cause else _verdict(question.change, p)
        words = cause or sentence(tables[0], question, verdict, len(sound))
        yield _claim(tables[0], question, p, verdict, label + words)


def _claim(table: MetricTable, question: Question, p: float, verdict: Decision, said: str) -> Claim:
    return Claim(
        task=table.task,
        metric=table.metric,
        averaging=table.averaging,
        main=table.main,
        statement=question.statement,
        given=question.given,
        cost=question.other.calls,
        base_cost=question.base.calls,
        base=question.base,
        other=question.other,
        value=question.change.value,
        lo=question.change.lo,
        hi=question.change.hi,
        n=question.change.n,
        p=question.change.p,
        p_holm=p,
        verdict=verdict,
        sentence=said,
    )


def _verdict(change: PairedChange, corrected: float) -> Decision:
    if change.n < MIN_IMAGES or not corrected <= ALPHA:
        return "undecided"
    return "holds" if change.better < change.worse else "fails"


def _columns(place: FamilySetting) -> dict[str, Any]:
    return {
        "nfe": place.nfe,
        "members": place.members,
        "temperature": place.temperature,
        "views": place.family.views,
    }


def _place(family: Family, columns: Mapping[str, Any]) -> FamilySetting:
    """The way back, from a family of the same way."""
    start = {"temperature": temperature_text(columns["temperature"]), "views": columns["views"]}
    return FamilySetting(family._replace(**start), columns["nfe"], columns["members"])
