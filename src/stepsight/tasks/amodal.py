"""Amodal segmentation: the whole of a partly hidden object, prompted by its visible mask.

The target is +1 on the object and -1 elsewhere; the visible mask is a condition image of the same
kind. A sample reads as the probability (x + 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stepsight.colours import colour_mask
from stepsight.metrics import protocol as protocols
from stepsight.metrics.segmentation import amodal_rows
from stepsight.metrics.trivial import bounding_box
from stepsight.tasks.base import require, resize
from stepsight.tasks.config import AmodalSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Amodal(AmodalSettings):
    """Predictions are probabilities in [0, 1]; the mask is where they exceed one half.
    Uncertainty: standard deviation of the members' probabilities."""

    needs: ClassVar[str] = "amodal"
    asks: ClassVar[tuple[str, ...]] = ("modal",)
    metric: ClassVar[str] = "iou"
    higher_is_better: ClassVar[bool] = True
    channels: ClassVar[int] = 1
    feature_channels: ClassVar[int] = 0

    def condition(self, batch: Batch) -> Condition:
        (modal,) = require(self.name, batch, "modal")
        prompt = (modal.to(batch.image.dtype) * 2 - 1).expand_as(batch.image)
        return Condition(torch.stack([batch.image, prompt], dim=1))

    def encode(self, batch: Batch) -> Target:
        amodal, valid = require(self.name, batch, "amodal", "amodal_valid")
        return Target(amodal.to(batch.image.dtype) * 2 - 1, valid)

    def decode(self, x: Tensor) -> Prediction:
        return Prediction(self.name, x[:, :1], ((x[:, :1] + 1) / 2).clamp(0, 1))

    def merge(self, members: Tensor) -> Prediction:
        members = members[:, :, :1]
        prediction = self.decode(members.clamp(-1, 1).mean(dim=0))
        if len(members) > 1:
            prediction.uncertainty = members.clamp(-1, 1).std(dim=0, correction=0) / 2
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        modal, amodal, valid = require(self.name, batch, "modal", "amodal", "amodal_valid")
        rule = protocols.get(protocol, self.name)
        return amodal_rows(prediction.values > 0.5, modal, amodal, valid, rule)

    def statistics(self, batch: Batch) -> Tensor:
        return batch.image.new_zeros(0, *batch.image.shape[-2:])  # no baseline is learned

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        (modal,) = require(self.name, batch, "modal")
        box = bounding_box(modal)
        return {
            "copied_mask": self.decode(modal.float() * 2 - 1),
            "bounding_box": self.decode(box.float() * 2 - 1),
        }

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(values, size)

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        (modal,) = require(self.name, batch, "modal")
        return colour_mask(modal, values > 0.5)

    def truth(self, batch: Batch) -> Tensor:
        (amodal,) = require(self.name, batch, "amodal")
        return amodal.float()
