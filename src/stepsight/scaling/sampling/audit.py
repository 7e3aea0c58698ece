"""Is a sampler sound? One that wastes its first call seems to improve with every further one.

A spacing such as "leading" begins its walk at a noise level below the one it starts from, so that
few calls answer nearly without having looked. Calls then "help", because they recover what the
first one lost (Garcia et al. 2024, arXiv:2409.11355, fig. 1). A family is named as broken when its
setting of one member with the fewest calls

    is not shown to be better than the constant predictor, or
    is worse than one call of the same checkpoint with trailing spacing, where the sweep has it,

by the metric that the task is judged by, at a one-sided p of 2.5 % on the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepsight.measures import measure, number
from stepsight.scaling.sampling.paired import ALPHA, MIN_IMAGES, FamilySetting, MetricTable, paired
from stepsight.scaling.sampling.sweeps import Family

NOTHING = (0, 0)  # the setting of a predictor that makes no call


def audit(tables: Sequence[MetricTable]) -> dict[tuple[str, Family], str]:
    """The broken samplers by task and family, with the cause in a sentence."""
    broken = {}
    for table in (table for table in tables if table.main):
        first = _first(table)
        cause = first and (_unseeing(table, first) or _behind(table, first, tables))
        if first and cause:
            broken[table.task, table.family] = (
                f"{table.task}: {table.family} is a broken sampler and makes no claim: {cause}. "
                "What it gains over calls is recovery from a bad first call and not evidence that "
                "steps help."
            )
    return broken


def _first(table: MetricTable) -> FamilySetting | None:
    """One member with the fewest calls."""
    single = [place for place in table.places if place.members == 1]
    return min(single, key=lambda place: place.nfe, default=None)


def _unseeing(table: MetricTable, first: FamilySetting) -> str:
    """What is wrong with a first setting that does not beat a constant; "" where it does."""
    if table.constant is None:
        return ""
    settings = {NOTHING: table.constant, first[1:]: table.settings[first[1:]]}
    both = paired([replace(table, settings=settings)])
    constant = FamilySetting(table.family, *NOTHING)
    if both.n < MIN_IMAGES or both.change(constant, first).better <= ALPHA:
        return ""
    values = [number(both.values[place]) for place in (first, constant)]
    return (
        f"at {_calls(first.nfe)} its {measure(table.metric).label} of {values[0]} is no better "
        f"than the constant predictor's {values[1]}"
    )


def _behind(table: MetricTable, first: FamilySetting, tables: Sequence[MetricTable]) -> str:
    """What is wrong with a first setting that is worse than one trailing call; "" otherwise."""
    reference = _trailing(table, tables)
    if reference is None:
        return ""
    call = FamilySetting(reference.family, 1, 1)
    both = paired([table, reference], {first, call})
    if both.n < MIN_IMAGES or both.change(call, first).worse > ALPHA:
        return ""
    values = [number(both.values[place]) for place in (first, call)]
    return (
        f"at {_calls(first.nfe)} its {measure(table.metric).label} of {values[0]} is worse than "
        f"the {values[1]} of one call with trailing spacing"
    )


def _trailing(table: MetricTable, tables: Sequence[MetricTable]) -> MetricTable | None:
    """The table of trailing spacing that differs least besides; None for one that has it."""
    family = table.family
    if family.spacing == "trailing":
        return None

    def same(family: Family) -> tuple[str, ...]:
        return family.checkpoint, family.size, family.merge, family.temperature

    fitting = [
        other
        for other in tables
        if (other.task, other.metric, other.family.spacing)
        == (table.task, table.metric, "trailing")
        and same(other.family) == same(family)
        and (1, 1) in other.settings
    ]

    def shared(other: MetricTable) -> int:
        return sum(a == b for a, b in zip(other.family, family))

    return max(fitting, key=shared, default=None)


def _calls(count: int) -> str:
    return "one call" if count == 1 else f"{count} calls"
