"""Curves of a report on scaling: the points that one law may go through.

That is one loss or metric under one protocol and test-time setting, at one working size, of models
either trained from scratch or fine-tuned. The compute of a fine-tuned model includes what was spent
on the weights that it started from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stepsight.measures import main_metric, measure
from stepsight.scaling.analysis.words import named
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.ladders.forecast import (
    LOSS,
    Quantity,
    by_quantity,
    errors_of,
    most_samples,
    settled,
)
from stepsight.scaling.records import ScalingRecord, column

PARAMS, IMAGES = "params_active", "images_seen"


@dataclass(frozen=True)
class Curve:
    """Points of one quantity, and its errors: the loss, the metric, or 1 - it."""

    quantity: Quantity
    kind: str  # what tells it from other curves of the quantity, or ""
    records: tuple[ScalingRecord, ...]
    errors: tuple[float, ...]
    where: str = ""  # what tells it from curves of quantities that read the same
    trunks: Mapping[str, str] = field(default_factory=dict)  # of runs that branched off another

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (named(self.quantity), self.kind, self.where)))

    @property
    def label(self) -> str:
        """What the errors are, for an axis."""
        if self.quantity.metric == LOSS:
            return "validation loss"
        info = measure(self.quantity.metric)
        unit = f" [{info.unit}]" if info.unit else ""
        return f"{info.label}{unit}" if self.quantity.lower_is_better else f"1 - {info.label}"

    @property
    def runs(self) -> list[str]:
        """Labels of what shares its luck: branches go by the name of their trunk."""
        return [self.trunks.get(record.run, record.run) for record in self.records]

    @property
    def tuned(self) -> bool:
        """Whether its runs started from the weights of others."""
        return any(record.parent for record in self.records)

    @property
    def points(self) -> set[Hashable]:
        return {
            (record.run, record.images_seen, error)
            for record, error in zip(self.records, self.errors)
        }

    @property
    def compute(self) -> Array:
        """Training FLOPs "n", those of the weights that a run started from included."""
        return np.nan_to_num(self.column("inherited_flops")) + self.column("training_flops")

    @property
    def settles(self) -> bool:
        """Whether parameters and images say what a point is."""
        return settled(self.records)

    def column(self, name: str) -> Array:
        return column(self.records, name)


def curves(
    records: Iterable[ScalingRecord], trunks: Mapping[str, str] | None = None
) -> tuple[list[Curve], list[str]]:
    """All curves, losses first within a task, and notes on points that were left out. `trunks`
    names, of runs that branched off another one, that one.

    Where runs differ in the number of distinct samples alone, curves hold those with the most: the
    others saw the same images more often.
    """
    every, notes = [], []
    for quantity, rows in by_quantity(records).items():
        known = [record for record, error in zip(rows, errors_of(quantity, rows)) if error > 0]
        most = most_samples(known)
        curve = Curve(quantity, "", tuple(most), _errors(quantity, most), trunks=trunks or {})
        notes += _left_out(curve, len(rows) - len(known), len(known) - len(most))
        every += [curve] if most else []
    every = _kinds(every)
    order = list(dict.fromkeys(curve.quantity.task for curve in every))
    every.sort(key=lambda c: (order.index(c.quantity.task), c.quantity.metric != LOSS))
    return _told_apart(_without_copies(every)), list(dict.fromkeys(notes))


def _without_copies(curves: Sequence[Curve]) -> list[Curve]:
    """A loss belongs to a checkpoint: where that was evaluated on several data sets, it counts
    once."""
    kept: list[Curve] = []
    for curve in curves:
        quantity = curve.quantity._replace(dataset="")
        losses = [c for c in kept if c.quantity.metric == LOSS]
        same = [c for c in losses if c.quantity._replace(dataset="") == quantity]
        if not any(curve.points <= other.points for other in same):
            kept.append(curve)
    return kept


def _told_apart(curves: Sequence[Curve]) -> list[Curve]:
    """Curves of one name take their data set into it, and if need be their protocol."""
    for name in ("dataset", "protocol"):
        names = Counter(curve.name for curve in curves)
        curves = [
            replace(curve, where=f"{curve.where} {getattr(curve.quantity, name)}".strip())
            if names[curve.name] > 1
            else curve
            for curve in curves
        ]
    return list(curves)


def headline(every: Sequence[Curve]) -> list[Curve]:
    """The curves worth a figure: of each task, data set and kind the loss, and the main metric in
    the test-time setting with the most points, then the most model calls."""
    groups: dict[Hashable, list[Curve]] = defaultdict(list)
    for curve in every:
        q = curve.quantity
        groups[q.task, q.dataset, q.protocol * (q.metric != LOSS), curve.kind].append(curve)
    chosen = []
    for group in groups.values():
        offered = [curve.quantity.metric for curve in group if curve.quantity.metric != LOSS]
        main = main_metric(group[0].quantity.task, offered)
        offers = [curve for curve in group if curve.quantity.metric in (main, LOSS)]
        chosen.append(
            max(offers, key=lambda c: (len(c.errors), c.quantity.nfe * c.quantity.members))
        )
    return chosen


def _kinds(curves: Sequence[Curve]) -> list[Curve]:
    """The curves with what tells them apart within a quantity: working size, where they began
    from, and experts."""
    families: dict[Quantity, list[Curve]] = defaultdict(list)
    for curve in curves:
        families[curve.quantity._replace(size="", tuned=False, experts="")].append(curve)
    parts = {
        curve.quantity: (
            curve.quantity.size,
            "fine-tuned" if curve.quantity.tuned else "from scratch",
            curve.quantity.experts or "dense",
        )
        for curve in curves
    }
    return [
        replace(curve, kind=_differing(parts[curve.quantity], [parts[c.quantity] for c in family]))
        for family in families.values()
        for curve in family
    ]


def _differing(kind: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """The parts of a kind in which not all groups agree."""
    unlike = [len(set(parts)) > 1 for parts in zip(*groups)]
    return ", ".join(part for part, differs in zip(kind, unlike) if differs and part)


def _errors(quantity: Quantity, records: Sequence[ScalingRecord]) -> tuple[float, ...]:
    return tuple(errors_of(quantity, records).tolist())


def _left_out(curve: Curve, unusable: int, fewer: int) -> Iterator[str]:
    if unusable:
        yield f"{curve.name}: left out {unusable} points that have no logarithm"
    if fewer:
        yield f"{curve.name}: left out {fewer} points with fewer distinct samples"
