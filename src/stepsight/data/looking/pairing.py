"""Which truth belongs to which picture: by the key in their names, by numbers, by time stamps.

Never by position: one missing file would shift all that follow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

from stepsight.data.looking.names import Key, Name, seconds

APART = 0.02  # seconds between a picture and its depth, as in TUM RGB-D's associate.py
Pairs = dict[str, list[str]]  # path of a picture: those of its truth
Rule = Callable[[Sequence[Name], Sequence[Name]], Pairs]


def paired(pictures: Sequence[Name], truths: Sequence[Name]) -> tuple[Pairs, str]:
    """The truths of each picture, and by what they were found: the rule that pairs most files."""
    best: tuple[Pairs, str] = ({}, "")
    for by, rule in RULES.items():
        found = rule(pictures, truths)
        if _count(found) > _count(best[0]):
            best = found, by
        if _count(found) == len(truths):
            break
    return best


def _count(pairs: Pairs) -> int:
    return sum(map(len, pairs.values()))


def _equal(rename: Callable[[Key], Hashable]) -> Rule:
    """A rule: keys that are equal once renamed, where no two pictures share one."""

    def rule(pictures: Sequence[Name], truths: Sequence[Name]) -> Pairs:
        index: dict[Hashable, list[str]] = defaultdict(list)
        for picture in pictures:
            index[rename(picture.key)].append(picture.path)
        pairs: Pairs = defaultdict(list)
        for truth in truths:
            held = index.get(rename(truth.key), [])
            if len(held) == 1:
                pairs[held[0]].append(truth.path)
        return dict(pairs)

    return rule


def _numbers(key: Key) -> Hashable:
    return tuple(word.lstrip("0") or "0" if word.isdecimal() else word for word in key)


def _contained(pictures: Sequence[Name], truths: Sequence[Name]) -> Pairs:
    """One key begins or ends with the other, and with no other."""
    index = defaultdict(set)
    for picture in pictures:
        for part in _ends(picture.key):
            index[part].add(picture.path)
    held_by = Counter(picture.key for picture in pictures)
    whole = {picture.key: picture.path for picture in pictures if held_by[picture.key] == 1}
    pairs: Pairs = defaultdict(list)
    for truth in truths:
        held = {whole[part] for part in _ends(truth.key) if part in whole} or index[truth.key]
        if len(held) == 1:
            pairs[held.pop()].append(truth.path)
    return dict(pairs)


def _ends(key: Key) -> set[Key]:
    return {key[n:] for n in range(len(key))} | {key[:n] for n in range(1, len(key))}


def _differing(tails: bool) -> Rule:
    """What differs among the pictures is what differs among the truths: `IMG_7.jpg`, `D7.png`.
    tails: whether words that all of them end with are left out, and not only those they begin
    with."""

    def rule(pictures: Sequence[Name], truths: Sequence[Name]) -> Pairs:
        if min(len(pictures), len(truths)) < 2:
            return {}
        return _equal(_numbers)(_stripped(pictures, tails), _stripped(truths, tails))

    return rule


def _stripped(names: Sequence[Name], tails: bool) -> list[Name]:
    """Names with keys without the words that all of them begin with, or end with."""
    keys = [name.key for name in names]
    shortest = min(map(len, keys))
    head = next((n for n in range(shortest) if len({key[n] for key in keys}) > 1), shortest)
    rest = range(shortest - head) if tails else ()
    tail = next((n for n in rest if len({key[-1 - n] for key in keys}) > 1), 0)
    return [name._replace(key=name.key[head : len(name.key) - tail]) for name in names]


def _times(pictures: Sequence[Name], truths: Sequence[Name]) -> Pairs:
    """The nearest times within `APART` seconds, each used once, the nearest pair first."""
    times = sorted((when, p.path) for p in pictures if (when := seconds(p.path)) is not None)
    near: list[tuple[float, str, str]] = []
    for truth in truths:
        when = seconds(truth.path)
        if when is None:
            continue
        place = bisect_left(times, (when - APART, ""))
        while place < len(times) and times[place][0] <= when + APART:
            near.append((abs(times[place][0] - when), times[place][1], truth.path))
            place += 1
    pairs: Pairs = {}
    used = set[str]()
    for _, picture, truth in sorted(near):
        if picture not in pairs and truth not in used:
            pairs[picture] = [truth]
            used.add(truth)
    return pairs


RULES: dict[str, Rule] = {
    "equal names": _equal(lambda key: key),
    "equal numbers": _equal(_numbers),
    "names that begin or end alike": _contained,
    "the part of the names that differs": _differing(tails=False),
    "the part within the names that differs": _differing(tails=True),
    f"time stamps within {APART:g} s": _times,
}
