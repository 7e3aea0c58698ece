"""Emergence in a report on scaling: a thresholded metric after fine-tuning, against the loss of the
model that was fine-tuned (arXiv:2411.16035).

The records that allow it are of runs that started from others (`parent`) and were tuned on several
numbers of distinct samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stepsight.errors import UserError
from stepsight.scaling.analysis.words import named
from stepsight.scaling.emergence.companion import Judged, fit_companion, judge
from stepsight.scaling.emergence.elbow import EmergenceFit, fit_columns
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.ladders.forecast import LOSS, Quantity, by_quantity
from stepsight.scaling.loss_to_loss.pairs import PRETRAINING_TASK
from stepsight.scaling.plain import plain
from stepsight.scaling.records import ScalingRecord

LEVELS, MODELS = 3, 4  # fewest amounts of samples, and pretrained models, that show an elbow
COLUMNS: tuple[str, ...] = ("loss", "samples", "value")
Columns = dict[str, Array]


@dataclass(frozen=True)
class Emergence:
    """A thresholded metric after fine-tuning, the elbow fitted to it, and whose jump it is."""

    quantity: Quantity
    dataset: str  # where the task has several
    columns: Columns  # loss of the pretrained model, samples, value
    fit: EmergenceFit
    judged: Judged | None  # by a smooth companion; None where there is none

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (named(self.quantity), self.dataset)))

    @property
    def title(self) -> str:
        return f"{self.name}, after fine-tuning"

    def to_dict(self) -> dict[str, Any]:
        judged = {"judged": asdict(self.judged) if self.judged else None}
        return {"quantity": self.quantity._asdict()} | plain(judged) | self.fit.to_dict()


def emergences(records: Sequence[ScalingRecord], bootstrap: int) -> Iterator[Emergence]:
    """One for each metric that is better when higher, where the records hold enough."""
    tuned = [record for record in records if record.parent and record.samples]
    tables = {
        quantity: columns
        for quantity, rows in by_quantity(tuned).items()
        if quantity.metric != LOSS and _enough(columns := _columns(rows, records))
    }
    datasets = {quantity.dataset for quantity in tables}
    for quantity, columns in tables.items():
        if not quantity.lower_is_better:
            base = _base(records, quantity)
            fitted = fit_columns(columns, COLUMNS[:2], COLUMNS[2], bootstrap=bootstrap, base=base)
            dataset = quantity.dataset if len(datasets) > 1 else ""
            yield Emergence(quantity, dataset, columns, fitted, _judged(quantity, fitted, tables))


def _base(records: Sequence[ScalingRecord], quantity: Quantity) -> float | None:
    """The score of the trivial predictor, where the records of a quantity agree on it."""
    known = {record.trivial for record in by_quantity(records)[quantity]}
    return known.pop() if len(known) == 1 else None


def _columns(rows: Sequence[ScalingRecord], records: Sequence[ScalingRecord]) -> Columns:
    """Points of the last checkpoint of every fine-tuned run."""
    last = {record.run: record for record in sorted(rows, key=lambda one: one.images_seen)}
    points = [
        (loss, record.samples, record.value)
        for record in last.values()
        if (loss := loss_before(record, records)) is not None
    ]
    return dict(zip(COLUMNS, np.array(points, dtype=float).reshape(-1, 3).T))


def _judged(
    quantity: Quantity, fitted: EmergenceFit, tables: Mapping[Quantity, Columns]
) -> Judged | None:
    """Whether the jump is the model's or the metric's, by an error of the same predictions."""
    shared = {"metric": "", "lower_is_better": True}
    for other, columns in tables.items():
        if other.lower_is_better and other._replace(**shared) == quantity._replace(**shared):
            try:
                return judge(fitted, fit_companion(columns, COLUMNS[:2], COLUMNS[2]))
            except UserError:  # too few models at one of the amounts
                continue
    return None


def loss_before(tuned: ScalingRecord, records: Sequence[ScalingRecord]) -> float | None:
    """Validation loss of the checkpoint that a run started from: of its pretraining task if it has
    one, else the mean over its tasks."""
    before = [
        record for record in records if record.run == tuned.parent and record.loss is not None
    ]
    if not before:
        return None
    spent = tuned.inherited_flops or max(_spent(record) for record in before)
    nearest = min(before, key=lambda record: abs(_spent(record) - spent))
    losses = {record.task: record.loss for record in before if _spent(record) == _spent(nearest)}
    known = [loss for loss in losses.values() if loss is not None]
    return losses.get(PRETRAINING_TASK) or sum(known) / len(known)


def _spent(record: ScalingRecord) -> float:
    return record.training_flops + (record.inherited_flops or 0.0)


def _enough(columns: Columns) -> bool:
    models, levels = (len(np.unique(columns[name])) for name in COLUMNS[:2])
    return models >= MODELS and levels >= LEVELS
