"""A claim in words."""

from __future__ import annotations

import math
from typing import Literal

from stepsight.measures import measure
from stepsight.scaling.sampling.paired import MIN_IMAGES, FamilySetting, MetricTable, PairedChange
from stepsight.scaling.sampling.questions import BEST, HARMLESS, MARGIN, MEMBERS, Question

Decision = Literal["holds", "fails", "undecided", "broken sampler"]


def sentence(table: MetricTable, question: Question, verdict: Decision, together: int) -> str:
    """What was found. `together`: how many claims were corrected with this one."""
    metric = measure(table.metric).label
    if question.change.n < MIN_IMAGES:
        few = count(question.change.n, "image")
        return (
            f"{table.task}: {few}, too few to decide whether {_sides(question)} improve {metric}."
        )
    phrases = _HARM if question.statement == HARMLESS else _HELP
    words = phrases.get(verdict, phrases["undecided"]).format(sides=_sides(question), metric=metric)
    effect = _effect(table.metric, question.change, verdict)
    where = f"{_where(question)}, {question.change.n} images, {_averaging(table)}"
    return f"{table.task}: {words} {effect}, {where}{_lost(question, verdict, together)}."


_HELP = {
    "holds": "{sides} improve {metric} by",
    "fails": "{sides} make {metric} worse by",
    "undecided": "open whether {sides} improve {metric}:",
}
_HARM = {
    "holds": f"{{sides}} do no harm to {{metric}} (worse by {MARGIN:.1%} is allowed):",
    "fails": f"{{sides}} harm {{metric}} (worse by more than {MARGIN:.1%}):",
    "undecided": f"open whether {{sides}} harm {{metric}} (worse by {MARGIN:.1%} is allowed):",
}


def _sides(question: Question) -> str:
    """`8 calls instead of 1`."""
    if question.statement == MEMBERS:
        return f"{count(question.other.members, 'member')} instead of {question.base.members}"
    calls = question.other.calls if question.statement == BEST else question.other.nfe
    return f"{count(calls, 'call')} instead of {question.base.nfe}"


def _where(question: Question) -> str:
    """What both sides share, or for the best setting what it is."""
    if question.statement == MEMBERS:
        return f"with {count(question.base.nfe, 'call')} each {_start(question.base)}"
    if question.statement == BEST:
        setting = f"{question.other.nfe} x {question.other.members} {_start(question.other)}"
        chosen = question.given.partition(", ")[2]
        return f"spent as {setting}" + (f" ({chosen})" if chosen else "")
    return f"with {count(question.base.members, 'member')} {_start(question.base)}"


def _start(place: FamilySetting) -> str:
    views = "" if place.family.views == "none" else f" and {place.family.views} views"
    return f"at temperature {place.family.temperature}{views}"


def _effect(metric: str, change: PairedChange, verdict: Decision) -> str:
    """How much better, with its interval; of "worse by" how much worse."""
    if not math.isfinite(change.value):
        return "an unknown share, as the base is 0"
    sign = 1 if measure(metric).higher_is_better else -1
    sign = -sign if verdict == "fails" else sign
    lo, hi = sorted((sign * change.lo, sign * change.hi))
    plus = "" if lo > 0 and verdict != "undecided" else "+"
    value, lo, hi = (f"{x:{plus}.1%}" for x in (sign * change.value, lo, hi))
    return f"{value} (95 % interval {lo} to {hi})"


def _averaging(table: MetricTable) -> str:
    return "pooled" if table.averaging == "pooled" else "mean over images"


def _lost(question: Question, verdict: Decision, together: int) -> str:
    """Said where an interval excludes zero and the claim stays open all the same."""
    sure = question.change.lo > 0 or question.change.hi < 0
    if verdict != "undecided" or not sure or question.statement == HARMLESS:
        return ""
    return f"; not sure enough among {together} claims"


def count(number: int, what: str) -> str:
    """`1 call`, `4 calls`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
