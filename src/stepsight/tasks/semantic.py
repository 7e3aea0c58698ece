"""Semantic segmentation in an encoding that decodes exactly: every class has a code of numbers in
[-1, 1], and a sample is read as the class of the nearest code (L2).

One-hot: one channel per class, +1 on it and -1 elsewhere. Bits: the class id in binary, a channel
per bit (Analog Bits, Chen et al. 2023). Palette: a colour, which passes through a VAE of pictures;
the digits of the class id in base n, on the n x n x n grid that spans the colour cube, with the
least n that has room for all classes (Painter, Wang et al. 2023, with n = 6 for ADE20K's 150).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_labels, labels_legend, only
from stepsight.ensemble import most_central, pick
from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.cityscapes import CATEGORIES, weighted_instances
from stepsight.metrics.masks.segmentation import semantic_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.trivial import class_counts, prior_map
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.config import Resampling
from stepsight.tasks.base import Files, Task, broadcast_map, masked_mean
from stepsight.tasks.config import SemanticSettings
from stepsight.types import IGNORE, Batch, Prediction, Target

SHARPNESS = 8.0  # at a code, the loss gives a neighbouring one e^-8 of its probability


@dataclass(frozen=True)
class Semantic(Task, SemanticSettings):
    """Predictions are class ids. Uncertainty: share of the members that voted otherwise."""

    target_field = "labels"
    files = Files((1,), {".png": "labels"}, ids=True)
    verifiers = ("code_round_trip", "codec_round_trip")
    has_edges = True
    unit = "class ids"

    @property
    def channels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        bits = max(1, (self.classes - 1).bit_length())
        return {"onehot": self.classes, "bits": bits, "palette": 3}[self.encoding]

    def encode(self, batch: Batch) -> Target:
        (labels,) = require(self.name, batch, "labels")
        valid = labels != IGNORE
        highest = torch.where(valid, labels, 0).flatten(1).amax(dim=1)
        if int(highest.max()) >= self.classes:
            key = batch.keys[int(highest.argmax())]
            raise UserError(
                f"task semantic: label {int(highest.max())} in {key}, "
                f"but tasks.semantic.classes is {self.classes}. Set it to the source's count."
            )
        code = self._codes(batch.image)[torch.where(valid, labels, 0)]
        return Target(rearrange(code, "b h w c -> b c h w"), valid[:, None])

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, : self.channels]
        return Prediction(self.name, x, self._likeness(x).argmax(dim=1, keepdim=True))

    def chances(self, x: Tensor, statistics: Tensor | None = None) -> Tensor | None:
        """The probability "b k h w" of every class that a sample states. One-hot targets are -1 and
        +1, so that their conditional mean x_k is 2 p_k - 1. None for other encodings.

        statistics: of the training images, where errors were weighed by `importance`: a mean under
        weights w has probabilities in proportion to w_k p_k, from which p_k is taken back.
        """
        if self.encoding != "onehot":
            return None
        p = ((x[:, : self.channels] + 1) / 2).clamp(0, 1)
        if statistics is not None:
            p = p / self._rarity(statistics.to(p))[:, None, None]
        total = p.sum(dim=1, keepdim=True)
        return torch.where(total > 0, p / total.clamp_min(1e-12), 1 / self.classes)

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy of the softmax over the likeness to every code."""
        (labels,) = require(self.name, batch, "labels")
        valid = labels != IGNORE
        codes = self._codes(x.float())
        apart = F.pdist(codes).amin() ** 2 / 2  # in likeness, of two neighbours at one of them
        logits = SHARPNESS / apart * self._likeness(x[:, : self.channels].float())
        error = F.cross_entropy(logits, torch.where(valid, labels, 0), reduction="none")
        return masked_mean(error[:, None], valid[:, None])

    def importance(self, batch: Batch, statistics: Tensor | None) -> Tensor:
        """Rare classes count more: frequency^-1/2, with mean 1 over the pixels of training."""
        if statistics is None:
            return super().importance(batch, statistics)
        (labels,) = require(self.name, batch, "labels")
        rarity = self._rarity(statistics.to(batch.image))
        return rarity[torch.where(labels != IGNORE, labels, 0)][:, None]

    def _rarity(self, statistics: Tensor) -> Tensor:
        """The weight "k" of every class from its pixels in training, "k h w"."""
        share = statistics.sum(dim=(1, 2)) / statistics.sum()
        rarity = share.clamp_min(1e-4).rsqrt()
        return rarity / (rarity * share).sum()

    def merge(self, members: Tensor) -> Prediction:
        """ "mean": the class of the mean map, where every member counts with its own confidence.
        "vote": the class with most votes, and of those with equally many the one nearest to the
        mean; so are palettes merged by "mean" too, as the mean of two colours may be a third.
        "medoid": the member whose labels differ from the others' at the fewest pixels."""
        if len(members) == 1:
            return self.decode(members[0])
        votes = torch.stack([self.decode(member).values for member in members])
        if self.merge_by == "medoid":
            prediction = self.decode(pick(members, most_central(votes.float(), norm=0)))
        else:
            prediction = self.decode(members.mean(dim=0))
            if self.merge_by == "vote" or self.encoding == "palette":
                prediction.values = self._elected(votes, prediction.x)
        prediction.uncertainty = (votes != prediction.values).float().mean(dim=0)
        return prediction

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        (labels,) = self.require(batch, rule, "labels")
        ids = stated.values[:, 0]
        refuse_unknown(ids, labels != IGNORE, self.classes, batch)
        rows = semantic_rows(ids, labels, self.classes)
        if rule.besides != "instances":
            return rows
        (instances,) = self.require(batch, rule, "instances")
        if self.classes != len(CATEGORIES):
            raise UserError(
                f"{rule.name} scores the {len(CATEGORIES)} classes of Cityscapes, not "
                f"{self.classes}. Choose another protocol."
            )
        return rows | {"weighted": weighted_instances(ids, labels, instances)}

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        if batch.labels is None:
            return None
        values, labels = stated.values, batch.labels[:, None]
        likely, squares = _class_chances(stated, labels)
        return Case(
            (values != labels).float(),
            labels != IGNORE,
            doubt=None if likely is None else 1 - likely,
            stated=likely,
            happened=values == labels,
            squares=squares,
            outlines=(values, labels),
        )

    def formula(self, rule: Protocol) -> Iterator[str]:
        over = "c that occur" if rule.absent == "skipped" else "all c, 0 where c never occurs"
        yield f"IoU_c = TP / (TP + FP + FN), mIoU = mean over {over}"
        if rule.besides == "instances":
            yield "iIoU_c: TP and FN weighed by mean size of instances of c / size of the instance"

    def decided(self, batch: Batch, values: Tensor) -> Batch:
        return replace(batch, labels=values[:, 0])

    def edge_map(self, x: Tensor) -> Tensor:
        """As decided, for the noise of undecided codes is no edge."""
        values = self.decode(x).values
        classes = torch.arange(int(values.max()) + 1, device=x.device)
        return (values == classes[:, None, None]).to(x)

    def statistics(self, batch: Batch) -> Tensor:
        (labels,) = require(self.name, batch, "labels")
        return class_counts(labels, self.classes).float()

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        if statistics is None:
            return {}
        counts = broadcast_map(statistics, batch)[0]
        prior = prior_map(counts).expand(len(batch), 1, -1, -1)
        commonest = counts.sum((1, 2)).argmax()
        return {
            "constant": self._as_prediction(commonest.expand_as(prior)),
            "prior_map": self._as_prediction(prior),
        }

    def rescale(
        self, values: Tensor, size: tuple[int, int], how: Resampling = "antialiased"
    ) -> Tensor:
        if tuple(values.shape[-2:]) == tuple(size):
            return values
        return F.interpolate(values.float(), size=size, mode="nearest-exact").long()

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        picture = colour_labels(values[:, 0])
        return picture if like is None else only(picture, like != IGNORE)

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend:
        """Of the classes that occur in either."""
        return labels_legend(torch.cat([x[:, 0] for x in (values, like) if x is not None]))

    def truth(self, batch: Batch) -> Tensor:
        (labels,) = require(self.name, batch, "labels")
        return labels[:, None]

    def _as_prediction(self, labels: Tensor) -> Prediction:
        x = rearrange(self._codes(labels.float())[labels[:, 0]], "b h w c -> b c h w")
        return Prediction(self.name, x, labels)

    def _elected(self, votes: Tensor, mean: Tensor) -> Tensor:
        """The class "b 1 h w" with most of the votes "e b 1 h w"; of several the nearest to the
        mean "b c h w"."""
        ballots = rearrange(votes, "e b 1 h w -> b e h w")
        counts = ballots.new_zeros(self._likeness(mean).shape)
        counts.scatter_add_(1, ballots, torch.ones_like(ballots))
        beaten = counts < counts.amax(dim=1, keepdim=True)
        return self._likeness(mean).masked_fill(beaten, -torch.inf).argmax(dim=1, keepdim=True)

    def _likeness(self, x: Tensor) -> Tensor:
        """ "b c h w" to "b k h w": x . code - |code|^2 / 2, which is largest for the nearest code
        and falls as half the squared distance."""
        codes = self._codes(x)
        dots = torch.einsum("bchw,kc->bkhw", x, codes)
        return dots - codes.square().sum(dim=1)[:, None, None] / 2

    def _codes(self, like: Tensor) -> Tensor:
        """The code of every class, "k c" in [-1, 1]."""
        ids = torch.arange(self.classes, device=like.device)
        if self.encoding == "onehot":
            return F.one_hot(ids).to(like.dtype) * 2 - 1
        base = 2 if self.encoding == "bits" else self._levels()
        places = base ** torch.arange(self.channels, device=like.device)
        digits = ids[:, None] // places % base
        return digits.to(like.dtype) * 2 / (base - 1) - 1

    def _levels(self) -> int:
        """Values a channel of the palette takes: the least n >= 2 with n^3 >= classes."""
        return next(n for n in range(2, self.classes + 2) if n**3 >= self.classes)


def refuse_unknown(ids: Tensor, where: Tensor, classes: int, batch: Batch) -> None:
    """Raise UserError where predicted class ids "b h w" that count are not 0 .. classes - 1."""
    wrong = where & ((ids < 0) | (ids >= classes))
    if wrong.any():
        image = int(torch.nonzero(wrong)[0, 0])
        raise UserError(
            f"{batch.keys[image]}: class {int(ids[wrong][0])} is predicted where there are "
            f"{classes} classes, 0 to {classes - 1}. Write class numbers from 0, not colours or "
            "the data set's own ids."
        )


def _class_chances(stated: Stated, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The probability of the answer, and sum_k (p_k - [k is true])^2, "b 1 h w" each; None where
    neither the answer states probabilities nor members vote."""
    values, votes = stated.values, stated.members
    known = torch.where(labels == IGNORE, 0, labels)
    if stated.chances is not None:
        p, at = stated.chances.double().flatten(2), _nearest(stated.chances, values)
        image = torch.arange(len(p), device=p.device)[:, None, None]
        likely, true = (p[image, ids[:, 0], at][:, None] for ids in (values, known))
        squares = p.square().sum(1)[:, at][:, None]
    elif votes is not None:
        likely, true = ((votes == ids).double().mean(0) for ids in (values, known))
        squares = torch.stack([(votes == vote).double().mean(0) for vote in votes]).mean(0)
    else:
        return None, None
    return likely, squares - 2 * true + 1


def _nearest(small: Tensor, large: Tensor) -> Tensor:
    """For each pixel of `large "b c h w"` the nearest one of `small`, "h w", counted by rows."""
    height, width = small.shape[-2:]
    places = torch.arange(height * width, dtype=torch.float64, device=small.device)
    grid = places.reshape(1, 1, height, width)
    return F.interpolate(grid, size=large.shape[-2:], mode="nearest-exact")[0, 0].long()
