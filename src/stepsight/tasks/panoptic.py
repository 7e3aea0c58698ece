"""Panoptic segmentation: scored in predictions of other programs, as there is no model of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.panoptic import panoptic_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.tasks.base import Files
from stepsight.tasks.config import PanopticSettings
from stepsight.tasks.semantic import Semantic, refuse_unknown
from stepsight.types import IGNORE, Batch


@dataclass(frozen=True)
class Panoptic(Semantic, PanopticSettings):
    """Predictions are "b 2 h w": class ids, and the numbers of instances within a class."""

    files = Files((2, 1), {".png": "ids"}, ids=True, stride=1000)
    truths = ("labels", "instances")

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        labels, instances = self.require(batch, rule, "labels", "instances")
        ids = stated.values[:, 0]
        refuse_unknown(ids, ids != IGNORE, self.classes, batch)
        return panoptic_rows(stated.values, labels, instances, self.classes)

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        return None

    def formula(self, rule: Protocol) -> Iterator[str]:
        yield "PQ_c = sum IoU / (TP + FP/2 + FN/2), mean over c that occur"
