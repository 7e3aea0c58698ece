"""Intrinsic images: what light and surfaces contribute to a picture's colours, three channels each.

Targets are in [-1, 1] for values in [0, 1], as in Marigold's intrinsic decompositions (Ke et al.
2025; diffusers, `MarigoldIntrinsicsPipeline`): albedo and material, or albedo, shading and residual
with picture = albedo x shading + residual in linear light. Answers of imported models, for which no
data source has a truth: they are neither trained nor scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.tasks.base import Task
from stepsight.tasks.config import (
    AlbedoSettings,
    IntrinsicSettings,
    MaterialSettings,
    ResidualSettings,
    ShadingSettings,
)
from stepsight.types import Batch, Prediction, Target

GAMMA = 2.2  # of the screens that linear light is shown on


class Intrinsic(Task, IntrinsicSettings):
    """Predictions "b 3 h w" are in [0, 1], of material (roughness, metallicity, nothing).
    Uncertainty, of several members: their median deviation from the median, or their standard
    deviation about the mean, averaged over the channels."""

    target_field = "intrinsic"  # which no source has
    channels = 3
    unit = "shares from 0 to 1"

    def encode(self, batch: Batch) -> Target:
        self._lacks_truth()

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        self._lacks_truth()

    def truth(self, batch: Batch) -> Tensor:
        self._lacks_truth()

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, :3].clamp(-1, 1)
        return Prediction(self.name, x, (x + 1) / 2)

    def merge(self, members: Tensor) -> Prediction:
        """Of an even number the lower of the two middle members, as published."""
        members = members[:, :, :3].clamp(-1, 1)
        if len(members) == 1:
            return self.decode(members[0])
        if self.merge_by == "median":
            x = members.median(dim=0).values
            spread = (members - x).abs().median(dim=0).values
        else:
            x, spread = members.mean(dim=0), members.std(dim=0)
        prediction = self.decode(x)
        prediction.uncertainty = spread.mean(dim=1, keepdim=True) / 2  # [-1, 1] is twice as wide
        return prediction

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        """The channels as colours. Linear light is raised to 1 / 2.2, after its brightest value is
        brought to 1 where it is known up to scale."""
        if self.space == "linear":
            if self.up_to_scale:
                values = values / values.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
            values = values.clamp_min(0) ** (1 / GAMMA)
        return (values * 255).clamp(0, 255).to(torch.uint8)

    def _lacks_truth(self) -> NoReturn:
        raise UserError(
            f"task {self.name}: no data source has a truth of it, so it is neither trained nor "
            f"scored. Use it with `stepsight predict`."
        )


@dataclass(frozen=True)
class Albedo(Intrinsic, AlbedoSettings):
    """The colour of surfaces themselves."""


@dataclass(frozen=True)
class Material(Intrinsic, MaterialSettings):
    """Roughness and metallicity."""


@dataclass(frozen=True)
class Shading(Intrinsic, ShadingSettings):
    """The diffuse light that reaches surfaces."""


@dataclass(frozen=True)
class Residual(Intrinsic, ResidualSettings):
    """What albedo times shading lacks of the picture."""
