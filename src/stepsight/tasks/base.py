"""What a task is: the things the loop, the pipeline and the evaluator ask of it.

A task turns a truth into an image-like target and a sample of that target back into physical
units. It never sees the data source, the backbone or the sampler.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.types import Batch, Condition, Prediction, Target


class Task(Protocol):
    """Implemented by the frozen dataclasses of this room."""

    name: ClassVar[str]
    asks: ClassVar[tuple[str, ...]]  # condition images besides `image`, by field of Batch
    metric: ClassVar[str]  # the main one, and whether a larger value is better
    higher_is_better: ClassVar[bool]
    weight: float

    @property
    def needs(self) -> str:
        """The quantity of a sample that holds the truth."""
        ...

    @property
    def passes(self) -> int:
        """Runs of the backbone a sample; each holds channels / passes of the channels."""
        ...

    @property
    def rows(self) -> int:
        """Label rows of the backbone: one a pass, or one a class (`Batch.class_id`)."""
        ...

    @property
    def images(self) -> int:
        """Condition images."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the target."""
        ...

    @property
    def feature_channels(self) -> int:
        """Channels of Condition.features, 0 without."""
        ...

    @property
    def look_channels(self) -> int:
        """Channels of what it sees anew at every call (`look_at`), 0 if nothing."""
        ...

    @property
    def mirrors(self) -> tuple[int, ...]:
        """Channels of the target that change their sign in a mirrored picture."""
        ...

    def condition(self, batch: Batch) -> Condition:
        """What the backbone may see."""
        ...

    def importance(self, batch: Batch, statistics: Tensor | None) -> Tensor:
        """Weights of the pixels' errors in training, of mean about 1: "b 1 1 1" or "b 1 h w".
        statistics: those of the training images (`statistics`), where they are known."""
        ...

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Error "b" of answers "b c h w" in the target space, differentiable: what training from
        scratch minimises. The sum over entries that `weight` "b c h w" counts, each of them about
        as much as its squared error would."""
        ...

    def encode(self, batch: Batch) -> Target:
        """The truth as an image "b c h w" of about unit scale, and its valid mask "b 1 h w"."""
        ...

    def decode(self, x: Tensor) -> Prediction:
        """A sample "b c h w" of the target to physical units."""
        ...

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Error "b" of samples "b c h w" against the truth in physical space, differentiable:
        what end-to-end fine-tuning minimises."""
        ...

    def merge(self, members: Tensor) -> Prediction:
        """Members "e b c h w" of the target space to one prediction with uncertainty."""
        ...

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        """One row of numbers an image, under the named protocol."""
        ...

    def statistics(self, batch: Batch) -> Tensor:
        """Sums "s h w" over a training batch, from which the learned baselines are made."""
        ...

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        """Trivial predictors by name; those that need statistics are left out without them."""
        ...

    def rescale(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Physical values "b c h w" brought to another grid."""
        ...

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        """Physical values "b c h w" to uint8 "b 3 h w". `like`, a truth, lends its colour range,
        and what it does not know is veiled.

        A task may have `legend(like) -> Legend` besides: what the colours stand for."""
        ...

    def truth(self, batch: Batch) -> Tensor:
        """The truth in the form of Prediction.values, "b c h w"."""
        ...


class SquaredError:
    """How tasks learn unless they know better: by squared errors that all count alike."""

    def importance(self, batch: Batch, statistics: Tensor | None) -> Tensor:
        return batch.image.new_ones(len(batch), 1, 1, 1)

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return ((x - target).square() * weight).sum(dim=(1, 2, 3))


def robust(x: Tensor, beta: float = 0.1) -> Tensor:
    """Huber's loss over beta: x^2 / (2 beta) up to beta, |x| - beta / 2 beyond."""
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=beta)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean "b", float32, of `x "b c h w"` where `valid "b 1 h w"`; 0 where nothing is valid.

    The gradient is 0 at invalid pixels, provided that `x` itself is finite there.
    """
    count = valid.flatten(1).sum(dim=1) * x.shape[1]
    return torch.where(valid, x.float(), 0.0).flatten(1).sum(dim=1) / count.clamp_min(1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """ "b c h w" to another grid, bilinear; unchanged at the same size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def stand_in(statistics: Tensor, batch: Batch) -> Tensor:
    """A map "s h w" on the grid of `batch`, "1 s h w"."""
    height, width = batch.image.shape[-2:]
    return resize(statistics[None].to(batch.image), (height, width))
