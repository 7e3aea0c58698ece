"""The table of all rules, and what is asked of it: about a sample, about a set, about answers.

remarks(sample, source)         what is implausible about one sample
votes(sample, source)           what it has to say to each rule, to be counted over a set
summary(votes of a set)         what is implausible about a set, once a rule, with counts
first_look(source)              the same of the first few samples of a source
prediction_remarks(...)         what is implausible about answers alone
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from stepsight.data.fields import BUILT_IN, present, with_values
from stepsight.data.files import FileSource
from stepsight.data.plausible import depths, edges, motion, values
from stepsight.data.plausible.rules import Finding, PlausibleRule, Remark, Vote, spoken, vote
from stepsight.data.table import Source, read_samples
from stepsight.types import Sample

FIRST = 8  # samples of a source that are looked at before a run
MAPS = tuple(row.name for row in BUILT_IN.values() if row.kind == "map")
QUICK: tuple[PlausibleRule, ...] = (
    *(rule for name in MAPS for rule in values.of_map(name)),
    *values.ALONE,
    *depths.RULES,
)
RULES = (*QUICK, *edges.RULES, *motion.RULES)  # the last of which take longer than to read a sample
BY_NAME = {(rule.quantity, rule.name): rule for rule in RULES}
OTHERS = "rules of its package"


def votes(sample: Sample, source: Any, rules: Sequence[PlausibleRule] = RULES) -> list[Vote]:
    """What a sample has to say to the rules about the quantities that it has, and to those of
    other packages (`Field.problems`). A map without any valid value says only that."""
    cast: list[Vote] = []
    for row, value in present(sample):
        added = values.of_map(row.name) if row.kind == "map" and row.name not in BUILT_IN else ()
        for rule in (*added, *(rule for rule in rules if rule.quantity == row.name)):
            one = vote(rule, sample, source)
            cast += [one] if one else []
            if one and one.said and rule.name == values.SOME:
                break
        else:
            told = row.problems(value, sample, source) if row.problems else ()
            cast += [Vote(OTHERS, row.name, sample.key, said) for said in told]
    return cast


def remarks(sample: Sample, source: Any) -> list[Remark]:
    """What is implausible about one sample, as far as it can tell alone."""
    return summary(votes(sample, source))


def summary(votes: Iterable[Vote]) -> list[Remark]:
    """What the votes of a set come to: a remark for each rule that is broken, grave ones first."""
    by_rule: dict[tuple[str, str], list[Vote]] = {}
    for one in votes:
        by_rule.setdefault((one.quantity, one.name), []).append(one)
    found = list[Remark]()
    for (quantity, name), cast in by_rule.items():
        rule = BY_NAME.get((quantity, name)) or PlausibleRule(name, quantity, "", "", _elsewhere)
        found += spoken(rule, cast)
    return sorted(found, key=lambda remark: not remark.grave)


def first_look(source: Source, count: int = FIRST) -> list[Remark]:
    """What is implausible about the first `count` samples of a source, of those that can be read.
    Whoever prints it says that it saw no more."""
    seen = read_samples(source, range(min(count, len(source))), lambda index, error: None)
    return summary(one for sample in seen if sample for one in votes(sample, source))


def prediction_remarks(
    name: str, answers: Iterable[tuple[Sample, Tensor]], classes: int = 0
) -> list[Remark]:
    """What is implausible about predictions of a field, as samples hold it ("c h w" in its own
    units; of ids "h w"), each beside what it was predicted from: `image`, `second` and `key` of a
    sample of the same size. classes: how many there are, where there are any."""
    limits = SimpleNamespace(classes=("",) * classes, farthest=FileSource.farthest)
    rules = [rule for rule in RULES if rule.answers and rule.quantity == name]
    seen = [
        with_values(Sample(seen.image, seen.key, seen.source, second=seen.second), {name: values})
        for seen, values in answers
    ]
    found = summary(one for sample in seen for one in votes(sample, limits, rules))
    return [replace(remark, said=f"predicted {remark.said}") for remark in found]


def input_remarks(samples: Iterable[Sample]) -> list[Remark]:
    """What is implausible about what is predicted from: pictures, and second pictures."""
    rules = [rule for rule in RULES if rule.quantity in ("image", "second")]
    return summary(one for sample in samples for one in votes(sample, None, rules))


def _elsewhere(sample: Sample, source: Any) -> Finding:
    raise AssertionError("rules of other packages have looked already")
