"""Depth from one image: log, inverse, linear or as disparity, affine-invariant or metric.

With y = f(depth) increasing in depth (log d, -1/d, d), the target is 2 (y - a) / (b - a) - 1,
clipped to [-1, 1]: near -1, far +1 (Marigold, Ke et al. 2024, section 3.1, in linear depth). With
disparity, 1/d, in which some models are published, it is near +1, far -1. (a, b) are the image's
own 2 % and 98 % quantiles of y over valid pixels, or f of a fixed metric range.

With `prompt="valid"` a second condition image says which pixels have a depth, 1 or 0, as the
weights of Ravishankar et al. 2024 expect. They were trained on the truth's own mask, which nobody
has for a new image: ours is all ones, in training as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from stepsight import ensemble
from stepsight.colours import colour_depth, depth_legend, depth_limits, only, reference
from stepsight.ensemble import Reduce
from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.metrics.alignment.align import EXPONENTIALS, Space, align, into
from stepsight.metrics.alignment.normalised import normalised_rows
from stepsight.metrics.depth import TINY, clipped, depth_rows, scored_pixels
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.boundaries import boundary_recall_rows
from stepsight.metrics.ordering import ordering_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.protocols.formula import depth_steps
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.config import Resampling
from stepsight.rowwise import row_quantiles
from stepsight.tasks.base import Files, Task, masked_mean, resize, robust
from stepsight.tasks.config import DepthSettings
from stepsight.types import Batch, Condition, Prediction, Target

MIN_DEPTH = 1e-3  # metres; keeps log and inverse finite
MIN_VARIANCE = 1e-6  # of a sample, whose range is about 2; keeps the fit of a constant finite
USUAL_RANGE = {"log": 1.5, "inverse": 0.5, "linear": 8.0, "disparity": 0.5}  # of an image, by space
REDUCTIONS: dict[str, Reduce] = {  # by `merge_by`, but for the published one
    "median": "median",
    "mean": "mean",
    "medoid": "medoid",
    "unaligned_median": "median",
    "unaligned_mean": "mean",
}
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "log": torch.log,
    "inverse": lambda depth: -1 / depth,
    "linear": lambda depth: depth,
    "disparity": lambda depth: 1 / depth,
}
SHOWN_DISPARITY = 1e-2  # of the largest: what is farther is drawn as if it were there


@dataclass(frozen=True)
class Depth(Task, DepthSettings):
    """Predictions are metres. Affine-invariant ones are right up to scale and shift in `space`,
    and are shown as if near and far were `low` and `high`. Uncertainty: spread of the members, as
    they were merged, in the target space, where the whole range of an image is about 2."""

    target_field = "depth"
    channels = 1
    files = Files((1,), {".png": "grey16", ".pfm": "pfm"}, scaled=True)
    has_edges = True
    # scale and shift in `space` that bring answers to metres, as measured (`stepsight calibrate`)
    measured: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.range == "metric" and self.merge_by == "published":
            raise UserError(
                "tasks.depth.merge_by is published, which aligns the members and stretches their "
                "median: that loses the metres of tasks.depth.range metric. Choose median or mean."
            )

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.range == "metric" or self.measured:
            return "metres"
        given = {"log": "log depth", "linear": "depth"}.get(self.space, "1 / depth")
        return f"depth up to scale and shift of {given}"

    @property
    def images(self) -> int:
        return 2 if self.prompt == "valid" else 1

    def condition(self, batch: Batch) -> Condition:
        prompts = [torch.ones_like(batch.image)] * (self.images - 1)
        return Condition(torch.stack([batch.image, *prompts], dim=1))

    def encode(self, batch: Batch) -> Target:
        depth, valid = require(self.name, batch, "depth", "depth_valid")
        y = self.curve(torch.where(valid, depth, 1.0))
        low, high = self._limits(y, valid)
        x = (2 * (y - low) / (high - low).clamp_min(1e-6) - 1).clamp(-1, 1)
        far = -1.0 if self.space == "disparity" else 1.0
        return Target(torch.where(valid, x, far), valid)  # invalid pixels: the far plane

    def decode(self, x: Tensor) -> Prediction:
        x, (low, high) = x[:, :1], self._range(x)
        if self.clip:
            x = x.clamp(-1, 1)
        values = self.uncurve(low + (x + 1) / 2 * (high - low))
        if self.stretch:
            least, most = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
            share = (values - least) / (most - least).clamp_min(1e-6)
            values = self.low + (self.high - self.low) * share
        if self.measured:
            values = self.uncurve(self.measured[0] * self.curve(values) + self.measured[1])
        return Prediction(self.name, x, values)

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error in the target space; affine-invariant ("quantile") samples are fitted
        first (end-to-end fine-tuning, Garcia et al. 2025, after MiDaS, Ranftl et al. 2022)."""
        target, x = self.encode(batch), x[:, :1].float()
        if self.range == "quantile":
            x = least_squares(x, target)
        return masked_mean((x - target.x).abs(), target.valid)

    def importance(self, batch: Batch, statistics: Tensor | None) -> Tensor:
        """By the range of the image, in which its target is the unit: so errors count by what they
        are in `space`, as they do in metrics that align."""
        if self.range == "metric":
            return super().importance(batch, statistics)
        depth, valid = require(self.name, batch, "depth", "depth_valid")
        low, high = self._limits(self.curve(torch.where(valid, depth, 1.0)), valid)
        return (high - low) / USUAL_RANGE[self.space]

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return (robust(x - target) * weight).sum(dim=(1, 2, 3))

    def merge(self, members: Tensor) -> Prediction:
        if len(members) == 1:
            return self.decode(members[0])
        members = members[:, :, :1]
        x, spread = self._merged(members.clamp(-1, 1) if self.clip else members)
        prediction = self.decode(x)
        prediction.uncertainty = spread
        return prediction

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        values, given = stated.values, stated.given
        if rule.needs == "order":
            (order,) = self.require(batch, rule, "order")
            return ordering_rows(values, order, given=given)
        if rule.needs == "amodal":
            masks = self.require(batch, rule, "modal", "amodal")
            if given != "disparity":
                values = self.from_given(values, given).clamp(min=TINY).reciprocal()
            return boundary_recall_rows(values, *masks)
        if rule.needs == "film":
            raise UserError(f"{rule.name} scores films, not pictures: `stepsight film`.")
        depth, valid = self.require(batch, rule, "depth", "depth_valid")
        if rule.scored_in == "normalised":
            if given != "depth":
                raise UserError(f"{rule.name} scores depth up to scale and shift, not {given}.")
            return normalised_rows(values, depth, valid)
        return depth_rows(values, depth, valid, rule, given=given, keys=batch.keys)

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        """The merged prediction and its members, stacked below one another and aligned as one map
        whose first part alone is fitted."""
        truth, valid = batch.depth, batch.depth_valid
        if truth is None or valid is None or rule.space is None:
            return None
        if rule.needs is not None or rule.scored_in != "depth":
            return None
        merged, members = stated.values, stated.members
        maps = merged[None] if members is None else torch.cat([merged[None], members])
        height = truth.shape[-2]
        scored = scored_pixels(truth, valid, rule)
        tall = rearrange(maps, "e b 1 h w -> b 1 (e h) w")
        aligned = align(
            tall,
            repeat(truth, "b 1 h w -> b 1 (e h) w", e=len(maps)),
            repeat(scored, "b 1 h w -> b 1 (e h) w", e=len(maps)),
            rule.alignment,
            rule.space,
            given=stated.given,
            fit_rows=height,
            fit_positive=rule.fit_positive,
            fit_width=rule.fit_width,
            keys=batch.keys,
        )
        aligned = rearrange(aligned, "b 1 (e h) w -> e b 1 h w", h=height)
        p, *members = (clipped(depth, truth, scored, rule) for depth in aligned)
        error = (p - truth).abs() / torch.where(scored, truth, 1.0)
        return Case(error, scored, truth, torch.stack(members) if members else None)

    def formula(self, rule: Protocol) -> Iterator[str]:
        return depth_steps(rule)

    def from_given(self, values: Tensor, given: Space) -> Tensor:
        if given in EXPONENTIALS:
            return EXPONENTIALS[given](values)
        if given == "disparity":
            return values.clamp_min(SHOWN_DISPARITY * values.amax()).reciprocal()
        return values

    def to_given(self, values: Tensor, given: Space) -> Tensor:
        return into(values, given)

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        flat = self.decode(torch.zeros_like(batch.image[:, :1]))
        return {"constant": flat} | super().baselines(batch, statistics)

    def rescale(
        self, values: Tensor, size: tuple[int, int], how: Resampling = "antialiased"
    ) -> Tensor:
        y = resize(self.curve(values), size, how)
        if self.stretch and not self.measured:  # filters may overshoot
            y = y.clamp(*self._range(y))
        return self.uncurve(y)

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        """Depth known up to scale and shift is first fitted to `like`, so that a colour is the same
        depth in both."""
        truth = reference(like, values)
        if like is not None and self.range == "quantile":
            values = self._fitted(values, truth)
        lo, hi = depth_limits(truth)
        picture = colour_depth(values, lo=lo, hi=hi)
        return picture if like is None else only(picture, like.isfinite())

    def limits(self, values: Tensor) -> tuple[float, float]:
        lo, hi = depth_limits(values)
        return float(lo.min()), float(hi.max())

    def coloured(self, values: Tensor, limits: tuple[float, float]) -> Tensor:
        return colour_depth(values, lo=limits[0], hi=limits[1])

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend:
        """In metres where the values are, or were fitted to a truth."""
        unit = "m" if like is not None or self.unit == "metres" else ""
        lo, hi = depth_limits(reference(like, values))
        return depth_legend(float(lo[0]), float(hi[0]), unit)

    def _fitted(self, values: Tensor, truth: Tensor) -> Tensor:
        """Metres "b 1 h w" with the scale and shift in `space` that bring them closest to the
        truth, where both are finite."""
        known = truth.isfinite() & values.isfinite()
        target = Target(self.curve(torch.where(known, truth, 1.0)), known)
        return self.uncurve(least_squares(self.curve(values.float()), target))

    def _merged(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """(merged, spread), "b 1 h w", of "e b 1 h w" by `merge_by`. Metres are not aligned."""
        if self.merge_by == "published":
            maps = (members + 1) / 2 if self.merge_range == "unit" else members
            how = self.merge_resolution, self.merge_pairs == "together"
            x, spread = ensemble.merge_published(maps, *how)
            return 2 * x - 1, 2 * spread
        reduce = REDUCTIONS[self.merge_by]
        if self.range == "quantile" and not self.merge_by.startswith("unaligned"):
            return ensemble.align_and_merge(members, reduce=reduce)
        x = ensemble.REDUCE[reduce](members)
        if self.range == "metric":
            return x, members.std(dim=0, correction=0)
        return x, ensemble.spread(members, x, reduce)

    def curve(self, depth: Tensor) -> Tensor:
        """Metres in `space`."""
        depth = depth.clamp_min(MIN_DEPTH) if self.space != "linear" else depth
        return CURVES[self.space](depth)

    def uncurve(self, y: Tensor) -> Tensor:
        """The inverse, finite for all y."""
        if self.space == "log":
            return y.exp()
        if self.space == "inverse":
            return 1 / (-y).clamp_min(1e-3)  # at most 1 km
        if self.space == "disparity":
            return 1 / y.clamp_min(1e-3)
        return y

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        near, far = (self.curve(like.new_full((), end)) for end in (self.low, self.high))
        return torch.minimum(near, far), torch.maximum(near, far)

    def _limits(self, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of the module docstring, "b 1 1 1"."""
        if self.range == "metric":
            return self._range(y)
        known = torch.where(valid, y, torch.nan).flatten(1)
        low, high = row_quantiles(known, (0.02, 0.98)).nan_to_num()[:, :, None, None, None]
        return low, high


def least_squares(x: Tensor, target: Target) -> Tensor:
    """s x + t with the s and t of each image that minimise sum (s x + t - target)^2 over its valid
    pixels: s = cov(x, target) / var(x), t = mean target - s mean x. Differentiable through the fit.
    """
    centre = masked_mean(x, target.valid)[:, None, None, None]
    middle = masked_mean(target.x, target.valid)[:, None, None, None]
    deviation = x - centre
    variance = masked_mean(deviation.square(), target.valid)
    covariance = masked_mean(deviation * (target.x - middle), target.valid)
    scale = covariance / variance.clamp_min(MIN_VARIANCE)
    return scale[:, None, None, None] * deviation + middle
