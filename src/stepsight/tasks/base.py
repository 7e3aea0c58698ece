"""What a task is: the things the loop, the pipeline and the evaluator ask of it.

A task turns a truth into an image-like target and a sample of that target back into physical
units. It never sees the data source, the backbone or the sampler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.metrics import protocol as protocols
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import reported
from stepsight.metrics.trivial import accumulate_mean_map, mean_map
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.config import Resampling
from stepsight.tasks.config import TaskSettings
from stepsight.types import Batch, Condition, Prediction, Target


@dataclass(frozen=True)
class Files:
    """How other programs write predictions of a task: always .npy, and what else is named here.

    channels: those that an array may have; more than the first are other ways to write it.
    containers: by suffix, a container that `evaluation.predictions.files` reads, or a function from
    a path to "c h w".
    """

    channels: tuple[int, ...] = (1,)
    containers: Mapping[str, str | Callable[[Path], Tensor]] = field(default_factory=dict)
    ids: bool = False  # whole numbers that stand for something
    scaled: bool = False  # whole numbers are divided by the scale that the user gives
    stride: int = 0  # one channel may hold stride * class + instance


class Task(TaskSettings, ABC):
    """What the frozen dataclasses of this room are, on top of their settings.

    What a task need not say unless it differs: it reads one picture in one run of the backbone and
    learns by squared errors that all count alike.
    """

    target_field: ClassVar[str]  # the quantity of a sample that holds the truth
    channels: ClassVar[int]  # of the target
    required_inputs: ClassVar[tuple[str, ...]] = ()  # condition images besides `image`, by field
    mirrors: ClassVar[tuple[int, ...]] = ()  # channels whose sign a mirrored picture changes
    truths: ClassVar[
        tuple[str, ...]
    ] = ()  # what values are scored against, if not `target_field` alone
    files: ClassVar[Files | None] = None  # None: no predictions of other programs are read
    verifiers: ClassVar[tuple[str, ...]] = ("codec_round_trip",)  # of members, `testtime.verifiers`
    has_edges: ClassVar[bool] = False  # its members have edges where those of other such tasks do
    in_pixels: ClassVar[bool] = False  # values and uncertainty are lengths in pixels of their grid
    unit: ClassVar[str] = "numbers"  # of values, with what is to be known of them

    @property
    def splits(self) -> int:
        """Runs of the backbone per sample; each holds channels / splits of the channels."""
        return 1

    @property
    def label_count(self) -> int:
        """Label rows of the backbone: one per run, or one per class (`Batch.class_id`)."""
        return self.splits

    @property
    def images(self) -> int:
        """Condition images."""
        return 1 + len(self.required_inputs)

    @property
    def feature_channels(self) -> int:
        """Channels of Condition.features, 0 without."""
        return 0

    @property
    def look_channels(self) -> int:
        """Channels of what it sees anew at every call (`look_at`), 0 if nothing."""
        return 0

    @property
    def hidden_share(self) -> float:
        """The share of training rows whose label is hidden (classifier-free guidance)."""
        return 0.0

    def condition(self, batch: Batch) -> Condition:
        """What the backbone may see."""
        others = require(self.name, batch, *self.required_inputs)
        return Condition(torch.stack([batch.image, *others], dim=1))

    def look_at(self, x: Tensor, images: Tensor) -> Tensor:
        """What an estimate "b c h w" of the target leaves over of the condition images "b k h w":
        "b look_channels h/2 w/2"."""
        raise NotImplementedError

    def importance(self, batch: Batch, statistics: Tensor | None) -> Tensor:
        """Weights of the pixels' errors in training, of mean about 1: "b 1 1 1" or "b 1 h w".
        statistics: those of the training images (`statistics`), where they are known."""
        return batch.image.new_ones(len(batch), 1, 1, 1)

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Error "b" of answers "b c h w" in the target space, differentiable: what training from
        scratch minimises. The sum over entries that `weight` "b c h w" counts, each of them about
        as much as its squared error would."""
        return ((x - target).square() * weight).sum(dim=(1, 2, 3))

    @abstractmethod
    def encode(self, batch: Batch) -> Target:
        """The truth as an image "b c h w" of about unit scale, and its valid mask "b 1 h w"."""

    @abstractmethod
    def decode(self, x: Tensor) -> Prediction:
        """A sample "b c h w" of the target to physical units."""

    @abstractmethod
    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Error "b" of samples "b c h w" against the truth in physical space, differentiable:
        what end-to-end fine-tuning minimises."""

    @abstractmethod
    def merge(self, members: Tensor) -> Prediction:
        """Members "e b c h w" of the target space to one prediction with uncertainty."""

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> Rows:
        """One row of numbers per image, under the named protocol."""
        rule = protocols.get(protocol, self.name)
        return reported(self.score_values(Stated(prediction.values), batch, rule), rule)

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        """The same of physical values, all that a protocol could report, with the counts behind it.

        Raises UserError where the batch lacks the truth, or for values that cannot be scored."""
        raise UserError(f"Values alone cannot be scored under {rule.name}: it needs a model.")

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        """An answer beside the truth, as its uncertainty is scored (`evaluation.spread`); None
        where the protocol scores no pixel errors."""
        return None

    def formula(self, rule: Protocol) -> Iterator[str]:
        """The steps from prediction to number under a protocol, for `stepsight protocols`."""
        yield rule.description

    def statistics(self, batch: Batch) -> Tensor:
        """Sums "s h w" over a training batch, from which the learned baselines are made: here those
        of the mean target."""
        target = self.encode(batch)
        return torch.cat(accumulate_mean_map(target.x, target.valid))

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        """Trivial predictors by name; those that need statistics are left out without them."""
        if statistics is None:
            return {}
        mean = broadcast_map(mean_map(statistics[:-1], statistics[-1:]), batch)
        return {"mean_map": self.decode(mean.expand(len(batch), -1, -1, -1))}

    def rescale(
        self, values: Tensor, size: tuple[int, int], how: Resampling = "antialiased"
    ) -> Tensor:
        """Physical values "b c h w" brought to another grid."""
        return resize(values, size, how)

    @abstractmethod
    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        """Physical values "b c h w" to uint8 "b 3 h w". `like`, a truth, lends its colour range,
        and is void in the same places."""

    def limits(self, values: Tensor) -> tuple[float, float] | None:
        """The least and the most that the colours of `picture` tell apart, where those follow from
        the values themselves; None where a colour means the same in all pictures."""
        return None

    def coloured(self, values: Tensor, limits: tuple[float, float]) -> Tensor:
        """`picture` over given `limits`, so that colours of several mean the same; of tasks that
        have some."""
        raise NotImplementedError

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend | None:
        """What the colours of `picture` stand for, of the first image; None where they need no
        explanation."""
        return None

    def truth(self, batch: Batch) -> Tensor:
        """The truth in the form of Prediction.values, "b c h w", NaN where it is unknown."""
        values, valid = require(self.name, batch, self.target_field, f"{self.target_field}_valid")
        return torch.where(valid, values, torch.nan)

    def from_given(self, values: Tensor, given: Space) -> Tensor:
        """Physical values of what a file gives in a space of its own."""
        return values

    def to_given(self, values: Tensor, given: Space) -> Tensor:
        """The way back."""
        return values

    def decided(self, batch: Batch, values: Tensor) -> Batch:
        """The batch with a prediction in the place of the truth; of tasks judged by
        "code_round_trip", whose target follows from a prediction alone."""
        raise NotImplementedError

    def edge_map(self, x: Tensor) -> Tensor:
        """A sample "b c h w" of the target as a picture whose edges mean something."""
        return x

    def require(self, batch: Batch, rule: Protocol, *names: str) -> tuple[Tensor, ...]:
        """The named truth of the batch. Raises UserError, naming the protocol, where it lacks."""
        return require(f"{rule.task} under {rule.name}", batch, *names)


def robust(x: Tensor, beta: float = 0.1) -> Tensor:
    """Huber's loss over beta: x^2 / (2 beta) up to beta, |x| - beta / 2 beyond."""
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=beta)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean "b", float32, of `x "b c h w"` where `valid "b 1 h w"`; 0 where nothing is valid.

    The gradient is 0 at invalid pixels, provided that `x` itself is finite there.
    """
    count = valid.flatten(1).sum(dim=1) * x.shape[1]
    return torch.where(valid, x.float(), 0.0).flatten(1).sum(dim=1) / count.clamp_min(1)


def resize(x: Tensor, size: tuple[int, int], how: Resampling = "antialiased") -> Tensor:
    """ "b c h w" to another grid, bilinear unless `how` says else; unchanged at the same size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if how in ("nearest", "nearest_exact"):
        return F.interpolate(x, size=size, mode=how.replace("_", "-"))
    if how in ("pillow", "pillow_cubic"):
        cubic = how == "pillow_cubic"
        return torch.cat([_as_picture(one, size, cubic) for one in x.split(1)])
    if how == "rounded":  # as torchvision resizes 8-bit pictures
        return resize(((x + 1) * 127.5).round(), size).round() / 127.5 - 1
    antialias = how == "antialiased"
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _as_picture(x: Tensor, size: tuple[int, int], cubic: bool) -> Tensor:
    """ "1 c h w" by Pillow's bilinear or bicubic filter, channel by channel: a picture in [-1, 1]
    that came from 8 bits goes back to them, as publishers resize files; others as floats."""
    levels = (x + 1) * 127.5
    whole = bool(((levels - levels.round()).abs() < 1e-3).all() and levels.amin() > -1e-3)
    whole = whole and bool(levels.amax() < 255 + 1e-3)
    source = (levels.round().to(torch.uint8) if whole else x.float()).cpu().flatten(0, 1).numpy()
    (height, width), kernel = size, Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    shrunk = [np.array(Image.fromarray(part).resize((width, height), kernel)) for part in source]
    y = torch.from_numpy(np.stack(shrunk)).to(x)
    return (y / 127.5 - 1 if whole else y).unflatten(0, x.shape[:2])


def broadcast_map(statistics: Tensor, batch: Batch) -> Tensor:
    """A map "s h w" on the grid of `batch`, "1 s h w"."""
    height, width = batch.image.shape[-2:]
    return resize(statistics[None].to(batch.image), (height, width))
