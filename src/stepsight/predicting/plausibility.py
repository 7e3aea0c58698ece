"""What is implausible about the first pictures and answers of a collection, by the rules of
`data.plausible`, in the words of all that looks at samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from stepsight.data.decoding.images import read_image
from stepsight.data.plausible.judging import FIRST, input_remarks, prediction_remarks
from stepsight.data.plausible.rules import Remark
from stepsight.predicting.item import Item
from stepsight.predicting.saving import METRES
from stepsight.tasks.base import Task
from stepsight.types import Sample

FIELDS = {"flow": "flow", "normals": "normals", "amodal": "amodal", "semantic": "labels"}


class Answered(NamedTuple):
    """A picture uint8 "3 h w" and the values "c h w" that were predicted for it."""

    item: Item
    picture: Tensor
    values: Tensor


def implausible(task: Task, answers: Sequence[Answered]) -> list[Remark]:
    """What to say of the first `FIRST` answers and of what they were made from; of depth only where
    it is in metres."""
    field = FIELDS.get(task.name, "depth" if task.unit == METRES else "")
    seen = [(_sample(one), _held(field, one.values)) for one in answers[:FIRST]]
    found = input_remarks([sample for sample, _ in seen])
    classes = int(getattr(task, "classes", 0))
    return found + (prediction_remarks(field, seen, classes) if field else [])


def _sample(answer: Answered) -> Sample:
    second = read_image(answer.item.second) if answer.item.second else None
    if second is not None and second.shape != answer.picture.shape:
        second = None
    return Sample(answer.picture, answer.item.name, "", second=second)


def _held(field: str, values: Tensor) -> Tensor:
    """As samples hold a field."""
    return values > 0.5 if field == "amodal" else values[0] if field == "labels" else values
