"""Relations of a report on scaling: one loss or error of a model read off another one.

Each pairing of `loss_to_loss.pairs` that the records allow: loss to metric, task to task,
pretraining to fine-tuning, synthetic to real. Floors are those of the joint laws where these were
found, and fitted otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stepsight.errors import UserError
from stepsight.scaling.analysis.curves import Curve
from stepsight.scaling.analysis.laws import CurveLaws
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.intervals import half_width
from stepsight.scaling.ladders.forecast import LOSS
from stepsight.scaling.loss_to_loss.pairs import PAIRINGS, VALUE_KIND, PairedLosses, Where, pair
from stepsight.scaling.loss_to_loss.relation import Floor, Relation, relate
from stepsight.scaling.records import ScalingRecord

SYNTHETIC = "scenes"
FEWEST = 4  # pairs that are worth a figure
BELOW = 0.999  # of the smallest error, where a floor may lie at most


@dataclass(frozen=True)
class Panel:
    """Pairs of one kind and the relation through them."""

    name: str  # of the pairing
    pairing: PairedLosses
    relation: Relation

    @property
    def title(self) -> str:
        return PAIRINGS[self.name].about

    @property
    def x(self) -> Array:
        return np.array([pair.x for pair in self.pairing.pairs])

    @property
    def y(self) -> Array:
        return np.array([pair.y for pair in self.pairing.pairs])

    def to_dict(self) -> dict[str, Any]:
        about = {"hook": self.name, "x": self.pairing.x, "y": self.pairing.y}
        return about | {"notes": list(self.pairing.notes)} | self.relation.to_dict()


@dataclass(frozen=True)
class _Wish:
    """A pairing to try."""

    pairing: str
    records: Sequence[ScalingRecord]
    x_where: Where
    y_where: Where
    floors: tuple[Floor | None, Floor | None] = (None, None)


def panels(
    records: Sequence[ScalingRecord], headline: Sequence[CurveLaws], bootstrap: int
) -> tuple[list[Panel], list[str]]:
    """All relations between headline curves, and notes on those that found no pairs."""
    related, notes = [], []
    for wish in _wishes(records, headline):
        try:
            pairing = pair(wish.records, wish.pairing, x_where=wish.x_where, y_where=wish.y_where)
            if len({one.x for one in pairing.pairs}) < FEWEST:
                continue
            related.append(Panel(wish.pairing, pairing, _related(pairing, wish.floors, bootstrap)))
        except UserError as error:
            notes.append(f"{PAIRINGS[wish.pairing].about}: {error}")
    return related, notes


def _related(
    pairing: PairedLosses, floors: tuple[Floor | None, Floor | None], bootstrap: int
) -> Relation:
    """The relation; a floor that an error undercuts is fitted instead."""
    columns = [[one.x for one in pairing.pairs], [pair.y for pair in pairing.pairs]]
    usable = [
        floor if floor and floor.value < BELOW * min(values) else None
        for floor, values in zip(floors, columns)
    ]
    labels = [pair.label for pair in pairing.pairs]
    return relate(
        *columns, floor_x=usable[0], floor_y=usable[1], groups=labels, bootstrap=bootstrap
    )


def _wishes(records: Sequence[ScalingRecord], headline: Sequence[CurveLaws]) -> Iterator[_Wish]:
    losses = [laws for laws in headline if laws.curve.quantity.metric == LOSS]
    metrics = [laws for laws in headline if laws.curve.quantity.metric != LOSS]
    for metric in metrics:
        for loss in _of_task(losses, metric.curve.quantity.task)[:1]:
            yield _Wish(
                "loss-metric",
                metric.curve.records,
                {},
                _where(metric.curve),
                (floor_of(loss), floor_of(metric)),
            )
    for one, other in combinations(losses, 2):
        tasks = one.curve.quantity.task, other.curve.quantity.task
        if tasks[0] != tasks[1] and one.curve.tuned == other.curve.tuned:
            own = [*one.curve.records, *other.curve.records]
            wheres = [{"task": task} for task in tasks]
            yield _Wish("task-task", own, wheres[0], wheres[1], (floor_of(one), floor_of(other)))
    yield from _tuned(records)
    for one, other in combinations(sorted(metrics, key=_real), 2):
        if _same_but_data(one.curve, other.curve):
            pairing = "real-real" if _real(one) else "synthetic-real"
            own = [*one.curve.records, *other.curve.records]
            wheres = _where(one.curve), _where(other.curve)
            yield _Wish(pairing, own, *wheres, (floor_of(one), floor_of(other)))


def _tuned(records: Sequence[ScalingRecord]) -> Iterator[_Wish]:
    """Fine-tuned runs on the most samples, and the runs that they started from."""
    tuned = [record for record in records if record.parent and record.loss is not None]
    parents = [one for one in records if one.run in {record.parent for record in tuned}]
    for task in dict.fromkeys(record.task for record in tuned):
        own = [record for record in tuned if record.task == task]
        most = max(record.samples or 0 for record in own)
        own = [record for record in own if (record.samples or 0) == most]
        for before in dict.fromkeys(record.task for record in parents if record.loss is not None):
            yield _Wish("pretrain-finetune", [*parents, *own], {"task": before}, {"task": task})


def floor_of(laws: CurveLaws) -> Floor | None:
    """What the joint law says unlimited training would leave; None where it is no law."""
    if laws.joint is None or laws.joint.fit.verdict != "law":
        return None
    fit = laws.joint.fit
    lo, hi = fit.intervals["E"]
    deviation = (hi - lo) / (2 * half_width(fit.level))
    return Floor(fit.params["E"], "law", deviation if np.isfinite(deviation) else None)


def _of_task(every: Iterable[CurveLaws], task: str) -> list[CurveLaws]:
    return [laws for laws in every if laws.curve.quantity.task == task]


def _where(curve: Curve) -> dict[str, str]:
    """What chooses the records of a metric's curve."""
    first = curve.records[0]
    return {name: str(getattr(first, name)) for name in VALUE_KIND}


def _real(laws: CurveLaws) -> bool:
    return SYNTHETIC not in laws.curve.quantity.dataset


def _same_but_data(curve: Curve, other: Curve) -> bool:
    first, second = curve.quantity, other.quantity
    same = first.task == second.task and first.metric == second.metric and curve.kind == other.kind
    return same and first.dataset != second.dataset
