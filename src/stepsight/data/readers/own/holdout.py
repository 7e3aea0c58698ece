"""What is held out of a user's pictures to be evaluated: a function of their names alone.

Neighbouring frames are almost the same picture, so that drawing single ones would score what was
trained on. Whole scenes (folders) are held out where there are enough of them, drawn by a hash of
their names; else the end of each folder in the order of names. In both, every truth that several
samples have is on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from stepsight.data.readers.own.listing import SampleFiles

NAMED = 3  # scenes that are named
T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


class Apart(NamedTuple):
    """Samples to train on and samples to evaluate on, in their order; and how, in words."""

    train: list[SampleFiles]
    held: list[SampleFiles]
    how: str


def hold_out(
    entries: Sequence[SampleFiles], share: float, truths: Mapping[str, frozenset[str]]
) -> Apart:
    """A share of the samples apart. truths: of each sample, by its key.

    Of samples with the same truths at least one is held out, unless there is only one.
    """
    scenes = _scenes(entries, share)
    if scenes:
        order = sorted(scenes, key=lambda name: hashlib.sha256(name.encode()).digest())
        wanted, chosen = share * len(entries), list[str]()
        while sum(len(scenes[name]) for name in chosen) < wanted:
            chosen.append(order[len(chosen)])
        held = {entry.key for name in chosen for entry in scenes[name]}
        if _both_sides(entries, held, truths):
            more = f" and {len(chosen) - NAMED} more" if len(chosen) > NAMED else ""
            named = ", ".join(sorted(chosen)[:NAMED]) + more
            return _apart(entries, held, f"{len(chosen)} of {len(scenes)} scenes: {named}")
    held = set()
    for alike in _grouped(entries, lambda entry: truths[entry.key]).values():
        wanted = max(1, round(share * len(alike))) if len(alike) > 1 else 0
        held |= _ends(alike, wanted)
    return _apart(entries, held, f"the last {share:.0%} of each folder by name")


def _apart(entries: Sequence[SampleFiles], held: set[str], how: str) -> Apart:
    train = [entry for entry in entries if entry.key not in held]
    return Apart(train, [entry for entry in entries if entry.key in held], how)


def _scenes(entries: Sequence[SampleFiles], share: float) -> dict[str, list[SampleFiles]]:
    """The samples by the outermost folders of which there are enough to hold some out; {}: none.
    Folders of a picture each are no scenes."""
    parents = {entry.key: entry.paths["image"].parent.parts for entry in entries}
    for depth in range(1, max(map(len, parents.values()), default=0) + 1):
        groups = _grouped(entries, lambda entry, d=depth: "/".join(parents[entry.key][:d]))
        if len(groups) >= round(1 / share):
            return groups if len(entries) >= 2 * len(groups) else {}
    return {}


def _ends(entries: Sequence[SampleFiles], wanted: int) -> set[str]:
    """The keys of so many samples: the last of each folder, which share that number by size.
    Folders of a picture each count as one."""
    named = sorted(entries, key=lambda entry: entry.key)
    folders = _grouped(named, lambda entry: entry.paths["image"].parent)
    alone = 2 * len(folders) > len(entries)
    chosen: set[str] = set()
    seen = 0
    for folder in [named] if alone else folders.values():
        seen += len(folder)
        count = round(wanted * seen / len(entries)) - len(chosen)
        chosen |= {entry.key for entry in folder[len(folder) - count :]}
    return chosen


def _both_sides(
    entries: Iterable[SampleFiles], held: set[str], truths: Mapping[str, frozenset[str]]
) -> bool:
    """Whether both sides have each truth."""
    sides = [frozenset[str](), frozenset[str]()]
    for entry in entries:
        sides[entry.key in held] |= truths[entry.key]
    return sides[0] == sides[1]


def _grouped(values: Iterable[T], key: Callable[[T], Key]) -> dict[Key, list[T]]:
    groups: dict[Key, list[T]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups
