"""Semantic segmentation in an encoding that decodes exactly: one-hot maps or analog bits.

One-hot: one channel a class, +1 on it and -1 elsewhere, read by the largest. Bits: the class id in
binary, one channel a bit (Analog Bits, Chen et al. 2023), read by the nearest code in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_labels
from stepsight.errors import UserError
from stepsight.metrics import protocol as protocols
from stepsight.metrics.segmentation import semantic_rows
from stepsight.metrics.trivial import class_counts, prior_map
from stepsight.tasks.base import require, stand_in
from stepsight.tasks.config import SemanticSettings
from stepsight.types import IGNORE, Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Semantic(SemanticSettings):
    """Predictions are class ids. Uncertainty: share of the members that voted otherwise."""

    needs: ClassVar[str] = "labels"
    asks: ClassVar[tuple[str, ...]] = ()
    metric: ClassVar[str] = "miou"
    higher_is_better: ClassVar[bool] = True
    feature_channels: ClassVar[int] = 0

    @property
    def channels(self) -> int:
        return (
            self.classes if self.encoding == "onehot" else max(1, (self.classes - 1).bit_length())
        )

    def condition(self, batch: Batch) -> Condition:
        return Condition(batch.image[:, None])

    def encode(self, batch: Batch) -> Target:
        (labels,) = require(self.name, batch, "labels")
        valid = labels != IGNORE
        highest = torch.where(valid, labels, 0).flatten(1).amax(dim=1)
        if int(highest.max()) >= self.classes:
            key = batch.keys[int(highest.argmax())]
            raise UserError(
                f"task semantic: label {int(highest.max())} in {key}, "
                f"but tasks.semantic.classes is {self.classes}. Set it to the source's count."
            )
        code = self._codes(batch.image)[torch.where(valid, labels, 0)]
        return Target(rearrange(code, "b h w c -> b c h w"), valid[:, None])

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, : self.channels]
        likeness = torch.einsum("bchw,kc->bkhw", x, self._codes(x))
        return Prediction(self.name, x, likeness.argmax(dim=1, keepdim=True))

    def merge(self, members: Tensor) -> Prediction:
        """The class of the mean map: every member counts with its own confidence."""
        prediction = self.decode(members.mean(dim=0))
        if len(members) > 1:
            votes = torch.stack([self.decode(member).values for member in members])
            prediction.uncertainty = (votes != prediction.values).float().mean(dim=0)
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        (labels,) = require(self.name, batch, "labels")
        protocols.get(protocol, self.name)
        return semantic_rows(prediction.values[:, 0], labels, self.classes)

    def statistics(self, batch: Batch) -> Tensor:
        (labels,) = require(self.name, batch, "labels")
        return class_counts(labels, self.classes).float()

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        if statistics is None:
            return {}
        counts = stand_in(statistics, batch)[0]
        prior = prior_map(counts).expand(len(batch), 1, -1, -1)
        commonest = counts.sum((1, 2)).argmax()
        return {
            "constant": self._as_prediction(commonest.expand_as(prior)),
            "prior_map": self._as_prediction(prior),
        }

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(values.shape[-2:]) == tuple(size):
            return values
        return F.interpolate(values.float(), size=size, mode="nearest-exact").long()

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        return colour_labels(values[:, 0])

    def truth(self, batch: Batch) -> Tensor:
        (labels,) = require(self.name, batch, "labels")
        return labels[:, None]

    def _as_prediction(self, labels: Tensor) -> Prediction:
        x = rearrange(self._codes(labels.float())[labels[:, 0]], "b h w c -> b c h w")
        return Prediction(self.name, x, labels)

    def _codes(self, like: Tensor) -> Tensor:
        """The code of every class, "k c" in {-1, +1}."""
        ids = torch.arange(self.classes, device=like.device)
        if self.encoding == "onehot":
            return F.one_hot(ids).to(like.dtype) * 2 - 1
        bits = torch.arange(self.channels, device=like.device)
        return (ids[:, None] >> bits & 1).to(like.dtype) * 2 - 1
