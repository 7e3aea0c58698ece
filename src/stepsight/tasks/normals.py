"""Surface normals in camera coordinates: x right, y down, z forward; the target is the vector.

With `axes="right_up_back"` the target has y and z turned round: y up and z towards the viewer, the
axes of Marigold's normals (diffusers, `MarigoldImageProcessor.visualize_normals`: right, top,
facing the observer). Truth and predictions keep ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.colours import colour_normals, veil
from stepsight.ensemble import merge_directions
from stepsight.metrics import protocol as protocols
from stepsight.metrics.scoring import score
from stepsight.metrics.trivial import accumulate_mean_map, mean_map
from stepsight.metrics.truth import require
from stepsight.tasks.base import SquaredError, masked_mean, resize, stand_in
from stepsight.tasks.config import NormalsSettings
from stepsight.types import Batch, Condition, Prediction, Target

MAX_COSINE = 1 - 1e-6  # the slope of arccos is infinite at 1; costs 0.0014 rad at the truth


@dataclass(frozen=True)
class Normals(SquaredError, NormalsSettings):
    """Predictions are unit vectors. Uncertainty: mean angle of the members to their mean direction,
    divided by pi."""

    needs: ClassVar[str] = "normals"
    asks: ClassVar[tuple[str, ...]] = ()
    metric: ClassVar[str] = "mean_angle"
    higher_is_better: ClassVar[bool] = False
    rows: ClassVar[int] = 1
    passes: ClassVar[int] = 1
    images: ClassVar[int] = 1
    channels: ClassVar[int] = 3
    feature_channels: ClassVar[int] = 0
    look_channels: ClassVar[int] = 0
    mirrors: ClassVar[tuple[int, ...]] = (0,)

    def condition(self, batch: Batch) -> Condition:
        return Condition(batch.image[:, None])

    def encode(self, batch: Batch) -> Target:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        return Target(self._turned(torch.where(valid, normals, 0.0)), valid)

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, :3]
        return Prediction(self.name, x, self._turned(F.normalize(x, dim=1)))

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean angle to the truth in radians (the loss of end-to-end fine-tuning, Garcia et al.
        2025)."""
        target = self.encode(batch)
        direction = F.normalize(x[:, :3].float(), dim=1)
        cosine = (direction * target.x).sum(dim=1, keepdim=True)
        return masked_mean(cosine.clamp(-MAX_COSINE, MAX_COSINE).arccos(), target.valid)

    def merge(self, members: Tensor) -> Prediction:
        x, spread = merge_directions(F.normalize(members[:, :, :3], dim=2))
        prediction = self.decode(x)
        prediction.uncertainty = spread if len(members) > 1 else None
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        return score(prediction.values, batch, protocols.get(protocol, self.name))

    def statistics(self, batch: Batch) -> Tensor:
        target = self.encode(batch)
        return torch.cat(accumulate_mean_map(target.x, target.valid))

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        facing = torch.zeros_like(batch.image)
        facing[:, 2] = -1.0  # straight at the camera
        found = {"constant": self.decode(self._turned(facing))}
        if statistics is not None:
            mean = stand_in(mean_map(statistics[:3], statistics[3:]), batch)
            found["mean_map"] = self.decode(mean.expand_as(facing))
        return found

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return F.normalize(resize(values, size), dim=1)

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        picture = colour_normals(values)
        return picture if like is None else veil(picture, like.isfinite().all(dim=1, keepdim=True))

    def truth(self, batch: Batch) -> Tensor:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        return torch.where(valid, normals, torch.nan)

    def _turned(self, normals: Tensor) -> Tensor:
        """Between our axes and the target's, "b 3 h w"; its own inverse."""
        if self.axes == "right_down_forward":
            return normals
        return normals * normals.new_tensor([1.0, -1.0, -1.0])[:, None, None]
