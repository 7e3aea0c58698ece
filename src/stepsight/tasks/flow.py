"""Optical flow: both components of the motion from the image to the second image.

The target is flow / scale, never clipped, in pixels of the working grid, or of the fixed `grid`
whatever the working size. At small scale a network learns nothing from two concatenated frames, so
a parameter-free local cost volume is offered as a condition.

With `components="separate"` u and v are runs of their own, distinguished by their label row. That,
the grid (384, 512) and the scale 75 are the layout of the weights of Ravishankar et al. 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from stepsight import ensemble
from stepsight.colours import colour_flow, flow_legend, only, reference
from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.matching import mean_costs, scores
from stepsight.metrics.flow import axis_fit, flow_rows, scored_pixels
from stepsight.metrics.masked import Rows
from stepsight.metrics.photometric import warped
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.protocols.formula import flow_steps
from stepsight.metrics.trivial import mean_map, oracle_mean_flow
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.config import Resampling
from stepsight.tasks.base import Files, Task, masked_mean, resize, robust
from stepsight.tasks.config import FlowSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Flow(Task, FlowSettings):
    """Predictions are pixels of the grid they are given on. Uncertainty: root of the members'
    variance summed over u and v, in the same pixels."""

    target_field = "flow"
    required_inputs = ("second",)
    channels = 2
    files = Files((2,), {".png": "kitti_flow", ".flo": "flo", ".pfm": "pfm"})
    verifiers = ("photometric", "forward_backward", "codec_round_trip")
    has_edges = True
    in_pixels = True
    unit = "pixels, u to the right and v downwards"
    mirrors = (0,)

    def __post_init__(self) -> None:
        if self.grid != (0, 0) and min(self.grid) < 1:
            raise UserError(
                f"tasks.flow.grid is {self.grid}: give a height and a width in pixels, or 0 and 0 "
                "for the working grid."
            )

    @property
    def splits(self) -> int:
        return 2 if self.components == "separate" else 1

    @property
    def feature_channels(self) -> int:
        volumes = 1 + (self.fine_window > 0) + self.costs
        return volumes * (2 * self.radius + 1) ** 2 if self.cost_volume else 0

    @property
    def look_channels(self) -> int:
        return 4 * (3 + (2 * self.look_radius + 1) ** 2) if self.look and self.splits == 1 else 0

    def condition(self, batch: Batch) -> Condition:
        (second,) = require(self.name, batch, "second")
        features = self._volumes(batch.image, second) if self.cost_volume else None
        return Condition(torch.stack([batch.image, second], dim=1), features)

    def look_at(self, x: Tensor, images: Tensor) -> Tensor:
        """What an estimate "b 2 h w" of the target leaves over of both frames "b 6 h w": the second
        one warped by it, less the first, and the scores of shifts by a few pixels about it; by
        space-to-depth at half the resolution."""
        first, second = images[:, :3], images[:, 3:6]
        moved = warped(second, x[:, :2] * self._unit(x))
        (costs,) = mean_costs(first, moved, [5], stride=1, radius=self.look_radius)
        seen = torch.cat([moved - first, scores(costs, self.sharpness)], dim=1)
        return rearrange(seen, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)

    def _volumes(self, first: Tensor, second: Tensor) -> Tensor:
        windows = [self.window, *([self.fine_window] if self.fine_window else [])]
        costs = mean_costs(first, second, windows, stride=self.stride, radius=self.radius)
        raw = [costs[0] * 4] if self.costs else []
        return torch.cat([*(scores(cost, self.sharpness) for cost in costs), *raw], dim=1)

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

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Robust in the length of the difference, as the end-point error is."""
        length = torch.linalg.vector_norm(x - target, dim=1, keepdim=True)
        return (robust(length) * weight).sum(dim=(1, 2, 3))

    def merge(self, members: Tensor) -> Prediction:
        members = members[:, :, :2]
        prediction = self.decode(ensemble.REDUCE[self.merge_by](members))
        if len(members) > 1:
            pixels = members * self._unit(members)
            variance = pixels.var(dim=0, correction=0).sum(dim=1, keepdim=True)
            prediction.uncertainty = variance.sqrt()
        return prediction

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        flow, valid = self.require(batch, rule, "flow", "flow_valid")
        valid = scored_pixels(flow, valid, rule)
        values = stated.values
        if rule.alignment == "affine":
            values = axis_fit(values, flow, valid)
        rows = flow_rows(values, flow, valid, batch.occluded)
        return rows if rule.unit is None else rows | {"epe_units": rows["epe"] / rule.unit}

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        flow, valid = batch.flow, batch.flow_valid
        if rule.alignment != "none" or flow is None or valid is None:
            return None
        error = (stated.values - flow).norm(dim=1, keepdim=True)
        return Case(error, scored_pixels(flow, valid, rule), flow, stated.members)

    def formula(self, rule: Protocol) -> Iterator[str]:
        return flow_steps(rule)

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        still = torch.zeros_like(batch.image[:, :2])
        floors = {"zero_flow": self.decode(still)}
        if batch.flow is not None and batch.flow_valid is not None:
            mean = oracle_mean_flow(batch.flow, batch.flow_valid)
            floors["oracle_mean_flow"] = self._as_prediction(mean)
        if statistics is not None:
            total, count = statistics[:2], statistics[2:]
            overall = (total.sum((1, 2), keepdim=True) / count.sum()).expand_as(total)
            grid = (int(still.shape[-2]), int(still.shape[-1]))
            for name, mean in (("constant", overall), ("mean_map", mean_map(total, count))):
                learned = self.decode(mean[None].to(still)).values  # pixels of the working grid
                floors[name] = self._as_prediction(self.rescale(learned, grid).expand_as(still))
        return floors

    def rescale(
        self, values: Tensor, size: tuple[int, int], how: Resampling = "antialiased"
    ) -> Tensor:
        height, width = values.shape[-2:]
        factors = _across_and_down(size[1] / width, size[0] / height, values)
        return resize(values, size, how) * factors

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        picture = colour_flow(values, longest(reference(like, values)))
        return picture if like is None else only(picture, like.isfinite().all(dim=1, keepdim=True))

    def limits(self, values: Tensor) -> tuple[float, float]:
        return 0.0, float(longest(values).max())

    def coloured(self, values: Tensor, limits: tuple[float, float]) -> Tensor:
        return colour_flow(values, limits[1])

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend:
        return flow_legend(float(longest(reference(like, values))[0]))

    def _as_prediction(self, flow: Tensor) -> Prediction:
        return Prediction(self.name, flow / self._unit(flow), flow)

    def _unit(self, like: Tensor) -> Tensor:
        """Pixels of the grid of `like "... h w"` that one unit of the target is, "2 1 1"."""
        height, width = like.shape[-2:]
        if self.grid == (0, 0):
            return self.scale * _across_and_down(1.0, 1.0, like)
        return self.scale * _across_and_down(width / self.grid[1], height / self.grid[0], like)


def longest(flow: Tensor) -> Tensor:
    """The length "b 1 1 1" of the longest known vector of each of "b 2 h w"."""
    return flow.nan_to_num().norm(dim=1, keepdim=True).amax((1, 2, 3), keepdim=True)


def _across_and_down(x: float, y: float, like: Tensor) -> Tensor:
    """Factors "2 1 1" of the components of a flow: filled in on its device, not sent there."""
    return torch.stack([like.new_full((1, 1), factor) for factor in (x, y)])
