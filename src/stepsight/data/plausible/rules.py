"""What a rule is, what a sample has to say to it, and what is said of a set in the end.

A rule looks at a sample and finds it at fault, in order, or cannot tell. Some faults are certain
from one sample; others are a guess that only speaks where most samples agree. A set is spoken of
once a rule, with counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stepsight.types import Sample

NAMED = 3  # samples that a remark names
Finding = Mapping[str, Any] | bool | None


@dataclass(frozen=True)
class PlausibleRule:
    """One way in which a quantity can be implausible.

    look: given a sample that has the quantity and its source, what fills the gaps of `says` where
    it is so, False where it is decidedly not, None where the sample cannot tell.
    share: of the samples that can tell, more than this must be so; 0: any is worth a remark.
    least: samples that must be able to tell. alike: they have to be so in the same words.
    answers: whether predictions are held to it as well.
    """

    name: str
    quantity: str  # a field of samples
    says: str  # what is so, naming the quantity, with {gaps}
    do: str  # what to do next
    look: Callable[[Sample, Any], Finding]
    grave: bool = True  # a fault; False: worth knowing
    share: float = 0.0
    least: int = 1
    alike: bool = False
    answers: bool = False


class Vote(NamedTuple):
    """What a sample says to a rule that it can tell about; nothing where it is in order."""

    name: str  # of the rule
    quantity: str
    key: str  # of the sample
    said: str


@dataclass(frozen=True)
class Remark:
    """What is said of a sample or a set."""

    rule: str  # its name
    quantity: str
    said: str
    do: str
    grave: bool
    keys: tuple[str, ...]  # samples that are so
    told: int  # samples that could tell

    def __str__(self) -> str:
        named, do = ", ".join(self.keys[:NAMED]), f". {self.do}" if self.do else ""
        if len(self.keys) == 1 == self.told or (len(self.keys) == 1 and not self.do):
            return f"{named}: {self.said}{do}"
        more = f"such as {named}" if len(self.keys) > NAMED else named
        return f"{len(self.keys)} of {self.told} samples ({more}): {self.said}{do}"


def vote(rule: PlausibleRule, sample: Sample, source: Any) -> Vote | None:
    """What a sample says to a rule; None where it cannot tell."""
    found = rule.look(sample, source)
    if found is None:
        return None
    said = rule.says.format_map(found) if isinstance(found, Mapping) else rule.says * bool(found)
    return Vote(rule.name, rule.quantity, sample.key, said)


def spoken(rule: PlausibleRule, votes: list[Vote]) -> Iterator[Remark]:
    """What the votes of a set on a rule come to."""
    against = [one for one in votes if one.said]
    if not against or len(votes) < rule.least:
        return
    said, _ = Counter(one.said for one in against).most_common(1)[0]
    if rule.alike:
        against = [one for one in against if one.said == said]
    if len(against) > rule.share * len(votes) or len(against) == len(votes):
        keys = tuple(one.key for one in against)
        yield Remark(rule.name, rule.quantity, said, rule.do, rule.grave, keys, len(votes))
