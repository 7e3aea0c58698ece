"""Relations of a report on scaling: one loss or error of a model read off another one.

Each hook of `scaling.transfer.pairs` that the records allow: loss to metric, task to task,
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
from stepsight.scaling.analysis.curves import Array, Curve
from stepsight.scaling.analysis.laws import CurveLaws
from stepsight.scaling.ladders.forecast import LOSS
from stepsight.scaling.loss_to_loss.pairs import HOOKS, VALUE_KIND, Pairing, Where, pair
from stepsight.scaling.loss_to_loss.relation import Floor, Relation, relate
from stepsight.scaling.records import ScalingRecord

SYNTHETIC = "scenes"
FEWEST = 4  # pairs that are worth a figure
NORMAL = 1.645  # half of a 90 % interval, in standard deviations
BELOW = 0.999  # of the smallest error, where a floor may lie at most


@dataclass(frozen=True)
class Panel:
    """Pairs of one hook and the relation through them."""

    hook: str
    pairing: Pairing
    relation: Relation

    @property
    def title(self) -> str:
        return HOOKS[self.hook].about

    @property
    def x(self) -> Array:
        return np.array([one.x for one in self.pairing.pairs])

    @property
    def y(self) -> Array:
        return np.array([one.y for one in self.pairing.pairs])

    def to_dict(self) -> dict[str, Any]:
        about = {"hook": self.hook, "x": self.pairing.x, "y": self.pairing.y}
        return about | {"notes": list(self.pairing.notes)} | self.relation.to_dict()


@dataclass(frozen=True)
class _Wish:
    """A pairing to try."""

    hook: str
    records: Sequence[ScalingRecord]
    x_where: Where
    y_where: Where
    floors: tuple[Floor | None, Floor | None] = (None, None)


def panels(
    records: Sequence[ScalingRecord], headline: Sequence[CurveLaws], bootstrap: int
) -> tuple[list[Panel], list[str]]:
    """All relations between headline curves, and notes on those that found no pairs."""
    found, notes = [], []
    for wish in _wishes(records, headline):
        try:
            pairing = pair(wish.records, wish.hook, x_where=wish.x_where, y_where=wish.y_where)
            if len({one.x for one in pairing.pairs}) < FEWEST:
                continue
            found.append(Panel(wish.hook, pairing, _related(pairing, wish.floors, bootstrap)))
        except UserError as error:
            notes.append(f"{HOOKS[wish.hook].about}: {error}")
    return found, notes


def _related(
    pairing: Pairing, floors: tuple[Floor | None, Floor | None], bootstrap: int
) -> Relation:
    """The relation; a floor that an error undercuts is fitted instead."""
    columns = [[one.x for one in pairing.pairs], [one.y for one in pairing.pairs]]
    usable = [
        floor if floor and floor.value < BELOW * min(values) else None
        for floor, values in zip(floors, columns)
    ]
    labels = [one.label for one in pairing.pairs]
    return relate(
        *columns, floor_x=usable[0], floor_y=usable[1], groups=labels, bootstrap=bootstrap
    )


def _wishes(records: Sequence[ScalingRecord], headline: Sequence[CurveLaws]) -> Iterator[_Wish]:
    losses = [one for one in headline if one.curve.quantity.metric == LOSS]
    metrics = [one for one in headline if one.curve.quantity.metric != LOSS]
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
            hook = "real-real" if _real(one) else "synthetic-real"
            own = [*one.curve.records, *other.curve.records]
            wheres = _where(one.curve), _where(other.curve)
            yield _Wish(hook, own, *wheres, (floor_of(one), floor_of(other)))


def _tuned(records: Sequence[ScalingRecord]) -> Iterator[_Wish]:
    """Fine-tuned runs on the most samples, and the runs that they started from."""
    tuned = [one for one in records if one.parent and one.loss is not None]
    parents = [one for one in records if one.run in {one.parent for one in tuned}]
    for task in dict.fromkeys(one.task for one in tuned):
        own = [one for one in tuned if one.task == task]
        most = max(one.samples or 0 for one in own)
        own = [one for one in own if (one.samples or 0) == most]
        for before in dict.fromkeys(one.task for one in parents if one.loss is not None):
            yield _Wish("pretrain-finetune", [*parents, *own], {"task": before}, {"task": task})


def floor_of(found: CurveLaws) -> Floor | None:
    """What the joint law says unlimited training would leave; None where it is no law."""
    if found.joint is None or found.joint.fit.verdict != "law":
        return None
    fit = found.joint.fit
    lo, hi = fit.intervals["E"]
    half = {0.9: NORMAL, 0.95: 1.96}.get(fit.level, NORMAL)
    deviation = (hi - lo) / (2 * half)
    return Floor(fit.params["E"], "law", deviation if np.isfinite(deviation) else 0.0)


def _of_task(found: Iterable[CurveLaws], task: str) -> list[CurveLaws]:
    return [one for one in found if one.curve.quantity.task == task]


def _where(curve: Curve) -> dict[str, str]:
    """What chooses the records of a metric's curve."""
    first = curve.records[0]
    return {name: str(getattr(first, name)) for name in VALUE_KIND}


def _real(found: CurveLaws) -> bool:
    return SYNTHETIC not in found.curve.quantity.dataset


def _same_but_data(one: Curve, other: Curve) -> bool:
    first, second = one.quantity, other.quantity
    same = first.task == second.task and first.metric == second.metric and one.kind == other.kind
    return same and first.dataset != second.dataset
