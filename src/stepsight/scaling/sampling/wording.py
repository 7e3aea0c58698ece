"""A claim in words."""

from __future__ import annotations

import math
from typing import Literal

from stepsight.measures import measure
from stepsight.scaling.sampling.paired import MIN_IMAGES, Change, Place, Table
from stepsight.scaling.sampling.questions import BEST, HARMLESS, MARGIN, MEMBERS, Question

Verdict = Literal["holds", "fails", "undecided", "broken sampler"]


def sentence(table: Table, one: Question, verdict: Verdict, together: int) -> str:
    """What was found. `together`: how many claims were corrected with this one."""
    metric = measure(table.metric).label
    if one.change.n < MIN_IMAGES:
        few = count(one.change.n, "image")
        return f"{table.task}: {few}, too few to decide whether {_sides(one)} improve {metric}."
    found = _HARM if one.statement == HARMLESS else _HELP
    said = found.get(verdict, found["undecided"]).format(sides=_sides(one), metric=metric)
    effect = _effect(table.metric, one.change, verdict)
    where = f"{_where(one)}, {one.change.n} images, {_averaging(table)}"
    return f"{table.task}: {said} {effect}, {where}{_lost(one, verdict, together)}."


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


def _sides(one: Question) -> str:
    """`8 calls instead of 1`."""
    if one.statement == MEMBERS:
        return f"{count(one.other.members, 'member')} instead of {one.base.members}"
    calls = one.other.calls if one.statement == BEST else one.other.nfe
    return f"{count(calls, 'call')} instead of {one.base.nfe}"


def _where(one: Question) -> str:
    """What both sides share, or for the best setting what it is."""
    if one.statement == MEMBERS:
        return f"with {count(one.base.nfe, 'call')} each {_start(one.base)}"
    if one.statement == BEST:
        setting = f"{one.other.nfe} x {one.other.members} {_start(one.other)}"
        chosen = one.given.partition(", ")[2]
        return f"spent as {setting}" + (f" ({chosen})" if chosen else "")
    return f"with {count(one.base.members, 'member')} {_start(one.base)}"


def _start(place: Place) -> str:
    views = "" if place.family.views == "none" else f" and {place.family.views} views"
    return f"at temperature {place.family.temperature}{views}"


def _effect(metric: str, change: Change, verdict: Verdict) -> str:
    """How much better, with its interval; of "worse by" how much worse."""
    if not math.isfinite(change.value):
        return "an unknown share, as the base is 0"
    sign = 1 if measure(metric).higher_is_better else -1
    sign = -sign if verdict == "fails" else sign
    lo, hi = sorted((sign * change.lo, sign * change.hi))
    plus = "" if lo > 0 and verdict != "undecided" else "+"
    value, lo, hi = (f"{x:{plus}.1%}" for x in (sign * change.value, lo, hi))
    return f"{value} (95 % interval {lo} to {hi})"


def _averaging(table: Table) -> str:
    return "pooled" if table.averaging == "pooled" else "mean over images"


def _lost(one: Question, verdict: Verdict, together: int) -> str:
    """Said where an interval excludes zero and the claim stays open all the same."""
    sure = one.change.lo > 0 or one.change.hi < 0
    if verdict != "undecided" or not sure or one.statement == HARMLESS:
        return ""
    return f"; not sure enough among {together} claims"


def count(number: int, what: str) -> str:
    """`1 call`, `4 calls`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
