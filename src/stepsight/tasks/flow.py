"""Optical flow: both components of the motion from the image to the second image.

The target is flow / scale, never clipped, in pixels of the working grid, or of the fixed `grid`
whatever the working size. At small scale a network learns nothing from two concatenated frames, so
a parameter-free local cost volume is offered as a condition.

With `components="separate"` u and v are runs of their own, told apart by their label row. That, the
grid (384, 512) and the scale 75 are the layout of the weights of Ravishankar et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stepsight import ensemble
from stepsight.colours import colour_flow
from stepsight.errors import UserError
from stepsight.matching import cost_volume
from stepsight.metrics import protocol as protocols
from stepsight.metrics.scoring import score
from stepsight.metrics.trivial import accumulate_mean_map, mean_map, oracle_mean_flow
from stepsight.metrics.truth import require
from stepsight.tasks.base import masked_mean, resize
from stepsight.tasks.config import FlowSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Flow(FlowSettings):
    """Predictions are pixels of the grid they are given on. Uncertainty: root of the members'
    variance summed over u and v, in the same pixels."""

    needs: ClassVar[str] = "flow"
    asks: ClassVar[tuple[str, ...]] = ("second",)
    metric: ClassVar[str] = "epe"
    higher_is_better: ClassVar[bool] = False
    images: ClassVar[int] = 2
    channels: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.grid != (0, 0) and min(self.grid) < 1:
            raise UserError(
                f"tasks.flow.grid is {self.grid}: give a height and a width in pixels, or 0 and 0 "
                "for the working grid."
            )

    @property
    def passes(self) -> int:
        return 2 if self.components == "separate" else 1

    @property
    def rows(self) -> int:
        return self.passes

    @property
    def feature_channels(self) -> int:
        return (2 * self.radius + 1) ** 2 if self.cost_volume else 0

    def condition(self, batch: Batch) -> Condition:
        (second,) = require(self.name, batch, "second")
        features = None
        if self.cost_volume:
            features = cost_volume(
                batch.image,
                second,
                stride=self.stride,
                radius=self.radius,
                window=self.window,
                sharpness=self.sharpness,
            )
        return Condition(torch.stack([batch.image, second], dim=1), features)

    def encode(self, batch: Batch) -> Target:
        flow, valid = require(self.name, batch, "flow", "flow_valid")
        return Target(torch.where(valid, flow, 0.0) / self._unit(flow), valid)

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, :2]
        return Prediction(self.name, x, x * self._unit(x))

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean end-point error in pixels of the working grid."""
        flow, valid = require(self.name, batch, "flow", "flow_valid")
        error = self.decode(x.float()).values - torch.where(valid, flow, 0.0)
        return masked_mean(torch.linalg.vector_norm(error, dim=1, keepdim=True), valid)

    def merge(self, members: Tensor) -> Prediction:
        members = members[:, :, :2]
        prediction = self.decode(ensemble.REDUCE[self.merge_by](members))
        if len(members) > 1:
            pixels = members * self._unit(members)
            variance = pixels.var(dim=0, correction=0).sum(dim=1, keepdim=True)
            prediction.uncertainty = variance.sqrt()
        return prediction

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        return score(prediction.values, batch, protocols.get(protocol, self.name))

    def statistics(self, batch: Batch) -> Tensor:
        target = self.encode(batch)
        return torch.cat(accumulate_mean_map(target.x, target.valid))

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        still = torch.zeros_like(batch.image[:, :2])
        found = {"zero_flow": self.decode(still)}
        if batch.flow is not None and batch.flow_valid is not None:
            mean = oracle_mean_flow(batch.flow, batch.flow_valid)
            found["oracle_mean_flow"] = self._as_prediction(mean)
        if statistics is not None:
            total, count = statistics[:2], statistics[2:]
            overall = (total.sum((1, 2), keepdim=True) / count.sum()).expand_as(total)
            grid = (int(still.shape[-2]), int(still.shape[-1]))
            for name, mean in (("constant", overall), ("mean_map", mean_map(total, count))):
                learned = self.decode(mean[None].to(still)).values  # pixels of the working grid
                found[name] = self._as_prediction(self.rescale(learned, grid).expand_as(still))
        return found

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = values.shape[-2:]
        factor = values.new_tensor([size[1] / width, size[0] / height])[:, None, None]
        return resize(values, size) * factor

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        reference = values if like is None else like
        length = reference.nan_to_num().norm(dim=1, keepdim=True).amax((1, 2, 3), keepdim=True)
        return colour_flow(values, length)

    def truth(self, batch: Batch) -> Tensor:
        flow, valid = require(self.name, batch, "flow", "flow_valid")
        return torch.where(valid, flow, torch.nan)

    def _as_prediction(self, flow: Tensor) -> Prediction:
        return Prediction(self.name, flow / self._unit(flow), flow)

    def _unit(self, like: Tensor) -> Tensor:
        """Pixels of the grid of `like "... h w"` that one unit of the target is, "2 1 1"."""
        height, width = like.shape[-2:]
        rows, columns = (height, width) if self.grid == (0, 0) else self.grid
        stretch = like.new_tensor([width / columns, height / rows])
        return self.scale * stretch[:, None, None]
