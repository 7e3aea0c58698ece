"""Class-conditional generation of images: what backbones are pretrained on.

The target is the image itself, and the class, a label row of the backbone, is all its condition;
of models from elsewhere that were made to paint over a picture, so is the picture (`shown`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_image
from stepsight.errors import UserError
from stepsight.metrics import protocol as protocols
from stepsight.metrics.generation import generation_rows
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.truth import require
from stepsight.tasks.base import Task, masked_mean
from stepsight.tasks.config import ImageSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Image(Task, ImageSettings):
    """Predictions are RGB in [-1, 1], and `x` holds all members, "b (e c) h w": the answer is a
    distribution. Uncertainty: standard deviation of the members, averaged over the channels."""

    target_field = "class_id"
    unit = "colours from -1 to 1"
    channels = 3
    verifiers = ()

    @property
    def images(self) -> int:
        return int(self.shown)

    @property
    def label_count(self) -> int:
        return self.classes

    @property
    def hidden_share(self) -> float:
        return self.dropout

    def condition(self, batch: Batch) -> Condition:
        return Condition(batch.image[:, None][:, : self.images])

    def encode(self, batch: Batch) -> Target:
        (class_id,) = require(self.name, batch, "class_id")
        if int(class_id.max()) >= self.classes:
            key = batch.keys[int(class_id.argmax())]
            raise UserError(
                f"task image: class {int(class_id.max())} of {key}, "
                f"but tasks.image.classes is {self.classes}. Set it to the source's count."
            )
        return Target(batch.image, torch.ones_like(batch.image[:, :1], dtype=torch.bool))

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, :3]
        return Prediction(self.name, x, x.clamp(-1, 1))

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean squared error to the image."""
        target = self.encode(batch)
        return masked_mean((x[:, :3].float() - target.x).square(), target.valid)

    def merge(self, members: Tensor) -> Prediction:
        """The first member is the one shown: a mean of pictures is a blur, not a picture."""
        members = members[:, :, :3]
        prediction = self.decode(members[0])
        prediction.x = rearrange(members, "e b c h w -> b (e c) h w")
        if len(members) > 1:
            spread = members.clamp(-1, 1).std(dim=0, correction=0)
            prediction.uncertainty = spread.mean(dim=1, keepdim=True)
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> Rows:
        real = self.truth(batch)
        protocols.get(protocol, self.name)
        members = rearrange(prediction.x, "b (e c) h w -> e b c h w", c=3)
        return generation_rows(members.clamp(-1, 1), real)

    def formula(self, rule: Protocol) -> Iterator[str]:
        yield "mean_i |f_i - f| - 1/2 mean_ij |f_i - f_j|"

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        learned = super().baselines(batch, statistics)
        return {"mean_image": learned["mean_map"]} if learned else {}

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        return colour_image(values)

    def truth(self, batch: Batch) -> Tensor:
        require(self.name, batch, "class_id")
        return batch.image
