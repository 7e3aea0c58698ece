"""Surface normals in camera coordinates: x right, y down, z forward; the target is the vector.

With `axes="right_up_back"` the target has y and z turned round: y up and z towards the viewer, the
axes of Marigold's normals (diffusers, `MarigoldImageProcessor.visualize_normals`: right, top,
facing the observer); with "left_up_back" all three are, as Lotus is trained. Truth and predictions
keep ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.colours import colour_normals, normals_legend, only
from stepsight.ensemble import closest, merge_directions, merge_published_normals
from stepsight.legends import Legend
from stepsight.metrics.masked import Rows
from stepsight.metrics.normals import normals_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.config import Resampling
from stepsight.tasks.base import Files, Task, masked_mean, resize
from stepsight.tasks.config import NormalsSettings
from stepsight.types import Batch, Prediction, Target

MAX_COSINE = 1 - 1e-6  # the slope of arccos is infinite at 1; costs 0.0014 rad at the truth


@dataclass(frozen=True)
class Normals(Task, NormalsSettings):
    """Predictions are unit vectors. Uncertainty: mean angle of the members to their mean direction,
    divided by pi."""

    target_field = "normals"
    channels = 3
    files = Files((3,))
    unit = "unit vectors: x right, y down, z forward"
    mirrors = (0,)

    def encode(self, batch: Batch) -> Target:
        normals, valid = require(self.name, batch, "normals", "normals_valid")
        return Target(self._turned(torch.where(valid, normals, 0.0)), valid)

    def decode(self, x: Tensor) -> Prediction:
        x = self._clipped(x[:, :3])
        return Prediction(self.name, x, self._turned(F.normalize(x, dim=1)))

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean angle to the truth in radians (the loss of end-to-end fine-tuning, Garcia et al.
        2025)."""
        target = self.encode(batch)
        direction = F.normalize(x[:, :3].float(), dim=1)
        cosine = (direction * target.x).sum(dim=1, keepdim=True)
        return masked_mean(cosine.clamp(-MAX_COSINE, MAX_COSINE).arccos(), target.valid)

    def merge(self, members: Tensor) -> Prediction:
        directions = F.normalize(self._clipped(members[:, :, :3]), dim=2)
        x, spread = merge_directions(directions)
        if self.merge_by == "closest":
            x = closest(directions, x)
        elif self.merge_by == "whole":  # of the opposite vectors, as published
            x = -merge_published_normals(-directions)
        prediction = self.decode(x)
        prediction.uncertainty = spread if len(members) > 1 else None
        return prediction

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        truth = self.require(batch, rule, "normals", "normals_valid")
        return normals_rows(stated.values, *truth, pooled=rule.averaging == "pooled")

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        normals, valid = batch.normals, batch.normals_valid
        if normals is None or valid is None:
            return None
        cosine = F.cosine_similarity(stated.values, normals, dim=1)[:, None]
        return Case(cosine.clamp(-1, 1).arccos(), valid, unit=180 / math.pi)

    def formula(self, rule: Protocol) -> Iterator[str]:
        yield "angle = arccos(p . n / |p|)"

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        facing = torch.zeros_like(batch.image)
        facing[:, 2] = -1.0  # straight at the camera
        constant = self.decode(self._turned(facing))
        return {"constant": constant} | super().baselines(batch, statistics)

    def rescale(
        self, values: Tensor, size: tuple[int, int], how: Resampling = "antialiased"
    ) -> Tensor:
        return F.normalize(resize(values, size, how), dim=1)

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        picture = colour_normals(values)
        return picture if like is None else only(picture, like.isfinite().all(dim=1, keepdim=True))

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend:
        return normals_legend()

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1) if self.clip else x

    def _turned(self, normals: Tensor) -> Tensor:
        """Between our axes and the target's, "b 3 h w"; its own inverse."""
        if self.axes == "right_down_forward":
            return normals
        if self.axes == "left_up_back":
            return -normals
        return torch.cat([normals[:, :1], -normals[:, 1:]], dim=1)
