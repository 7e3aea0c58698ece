"""What is claimed of test-time compute, and the comparison that each claim rests on.

    more calls help             given members, temperature and views: the fewest calls against the
                                most, and with the fewest members 1 against 4
    further calls do no harm    with the fewest members, 4 calls against 8: worse by less than
                                `MARGIN` of the base
    more members help           given calls, temperature (above 0) and views: fewest against most
    the best setting beats one call
                                of the settings that cost the same the best one, against one call
                                of one member at the lowest temperature

The best setting of a cost would be flattered by the images it was chosen on (winner's curse). So it
is chosen on one half of the images, those whose key has an even first byte of its SHA-256, and put
to the test on the other half; a setting without a rival is tested on all images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from stepsight.scaling.sampling.paired import (
    FamilySetting,
    MetricTable,
    Paired,
    PairedChange,
    paired,
)
from stepsight.scaling.sampling.sweeps import Family

CALLS = "more calls help"
HARMLESS = "further calls do no harm"
MEMBERS = "more members help"
BEST = "the best setting beats one call"
MARGIN = 0.005
STEPS = ((CALLS, 1, 4), (HARMLESS, 4, 8))  # looked at besides the fewest and the most calls


class Question(NamedTuple):
    """A claim before it is decided."""

    statement: str
    given: str  # what both sides share
    base: FamilySetting
    other: FamilySetting
    change: PairedChange


def questions(tables: Sequence[MetricTable], ill: Collection[Family]) -> Iterator[Question]:
    """All that can be asked of one metric and way of sampling; of the families that are `ill` no
    best setting is chosen."""
    everywhere = paired(tables)
    for table in tables:
        yield from _of_calls(everywhere, list(table.places))
    for table in tables:
        yield from _of_members(everywhere, list(table.places))
    sound = [table for table in tables if table.family not in ill]
    if base := _one_call(sound):
        yield from _of_costs(sound, everywhere, base)


def held_back(key: str) -> bool:
    """Whether an image is of the half that the best settings are tested on, not chosen on."""
    return sha256(key.encode()).digest()[0] % 2 == 1


def _of_calls(everywhere: Paired, places: Sequence[FamilySetting]) -> Iterator[Question]:
    """More calls of one family given members; single steps with the fewest members alone."""
    fewest = min(place.members for place in places)
    for members in sorted({place.members for place in places}):
        line = {place.nfe: place for place in places if place.members == members}
        steps = [(CALLS, min(line), max(line)), *(STEPS if members == fewest else ())]
        for statement, low, high in dict.fromkeys(steps):
            if low < high and {low, high} <= line.keys():
                base, other = line[low], line[high]
                change = everywhere.change(base, other, MARGIN if statement == HARMLESS else 0.0)
                given = f"members {members}, {_start(other.family)}"
                yield Question(statement, given, base, other, change)


def _of_members(everywhere: Paired, places: Sequence[FamilySetting]) -> Iterator[Question]:
    """More members of one family given calls; without start noise all members are one."""
    for nfe in sorted({place.nfe for place in places if place.temperature > 0}):
        line = {place.members: place for place in places if place.nfe == nfe}
        base, other = line[min(line)], line[max(line)]
        if base != other:
            given = f"calls {nfe}, {_start(other.family)}"
            yield Question(MEMBERS, given, base, other, everywhere.change(base, other))


def _one_call(tables: Sequence[MetricTable]) -> FamilySetting | None:
    """One call of one member at the lowest temperature, on the picture as it is if possible."""
    single = [place for table in tables for place in table.places if place[1:] == (1, 1)]
    order = {place: (place.temperature, place.family.views != "none") for place in single}
    return min(single, key=order.__getitem__, default=None)


def _of_costs(
    tables: Sequence[MetricTable], everywhere: Paired, base: FamilySetting
) -> Iterator[Question]:
    """For every cost the best setting of that cost against one call."""
    chosen_on = paired(tables, keep=lambda key: not held_back(key))
    tested_on = paired(tables, keep=held_back)
    for cost in sorted({place.calls for place in everywhere.rows if place.calls > 1}):
        rivals = [place for place in chosen_on.rows if place.calls == cost]
        if not rivals:
            continue
        best = chosen_on.best(rivals) if len(rivals) > 1 else rivals[0]
        change = (tested_on if len(rivals) > 1 else everywhere).change(base, best)
        chosen = f", the best of {len(rivals)} on the other half" if len(rivals) > 1 else ""
        yield Question(BEST, f"calls in all {cost}{chosen}", base, best, change)


def _start(family: Family) -> str:
    return f"temperature {family.temperature}, views {family.views}"
