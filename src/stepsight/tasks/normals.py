"""Surface normals in camera coordinates: x right, y down, z forward; the target is the vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.colours import colour_normals
from stepsight.ensemble import merge_directions
from stepsight.metrics import protocol as protocols
from stepsight.metrics.normals import normals_rows
from stepsight.metrics.trivial import accumulate_mean_map, mean_map
from stepsight.tasks.base import require, resize, stand_in
from stepsight.tasks.config import NormalsSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Normals(NormalsSettings):
    """Predictions are unit vectors. Uncertainty: mean angle of the members to their mean direction,
    divided by pi."""

    needs: ClassVar[str] = "normals"
    asks: ClassVar[tuple[str, ...]] = ()
    metric: ClassVar[str] = "mean_angle"
    higher_is_better: ClassVar[bool] = False
    channels: ClassVar[int] = 3
    feature_channels: ClassVar[int] = 0

    def condition(self, batch: Batch) -> Condition:
        return Condition(batch.image[:, None])

    def encode(self, batch: Batch) -> Target:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        return Target(torch.where(valid, normals, 0.0), valid)

    def decode(self, x: Tensor) -> Prediction:
        return Prediction(self.name, x[:, :3], F.normalize(x[:, :3], dim=1))

    def merge(self, members: Tensor) -> Prediction:
        x, spread = merge_directions(F.normalize(members[:, :, :3], dim=2))
        prediction = self.decode(x)
        prediction.uncertainty = spread if len(members) > 1 else None
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        protocols.get(protocol, self.name)
        return normals_rows(prediction.values, normals, valid)

    def statistics(self, batch: Batch) -> Tensor:
        target = self.encode(batch)
        return torch.cat(accumulate_mean_map(target.x, target.valid))

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        facing = torch.zeros_like(batch.image)
        facing[:, 2] = -1.0  # straight at the camera
        found = {"constant": self.decode(facing)}
        if statistics is not None:
            mean = stand_in(mean_map(statistics[:3], statistics[3:]), batch)
            found["mean_map"] = self.decode(mean.expand_as(facing))
        return found

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return F.normalize(resize(values, size), dim=1)

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        return colour_normals(values)

    def truth(self, batch: Batch) -> Tensor:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        return torch.where(valid, normals, torch.nan)
