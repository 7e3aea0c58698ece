"""Amodal segmentation: the whole of a partly hidden object, prompted by its visible mask.

The target is +1 on the object and -1 elsewhere, read as the probability (x + 1) / 2; or, with
`target="rgb"`, the picture of the whole object on white (pix2gestalt, Ozguroglu et al. 2024), whose
mask is what is not background. The visible mask is a condition image of -1 and +1.

Reading a mask off a picture has a price: pictures of true objects have soft borders and white
parts, so even the truth's own picture does not give back the true mask (`silhouette`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepsight.colours import colour_mask, mask_legend, only
from stepsight.ensemble import most_central, pick
from stepsight.legends import Legend
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.segmentation import amodal_rows, scored_pixels
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.trivial import bounding_box
from stepsight.metrics.truth import require
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.tasks.base import Files, Task, masked_mean
from stepsight.tasks.config import AmodalSettings
from stepsight.tasks.silhouette import silhouette
from stepsight.types import Batch, Condition, Prediction, Target

DICE = 0.3  # of soft Dice in the error that is trained on


@dataclass(frozen=True)
class Amodal(Task, AmodalSettings):
    """Predictions are probabilities in [0, 1]; the mask is where they exceed one half.
    Uncertainty: standard deviation of the members' probabilities (of their votes, 0 or 1)."""

    required_inputs = ("modal",)
    unit = "probability, of the whole object"
    files = Files((1,), {".png": "mask"})
    verifiers = ("visible_mask", "code_round_trip", "codec_round_trip")

    @property
    def target_field(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "whole" if self.target == "rgb" else "amodal"

    @property
    def channels(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 3 if self.target == "rgb" else 1

    def condition(self, batch: Batch) -> Condition:
        (modal,) = require(self.name, batch, "modal")
        prompt = (modal.to(batch.image.dtype) * 2 - 1).expand_as(batch.image)
        return Condition(torch.stack([batch.image, prompt], dim=1))

    def encode(self, batch: Batch) -> Target:
        if self.target == "rgb":
            return Target(*require(self.name, batch, "whole", "amodal_valid"))
        amodal, valid = require(self.name, batch, "amodal", "amodal_valid")
        return Target(amodal.to(batch.image.dtype) * 2 - 1, valid)

    def decode(self, x: Tensor) -> Prediction:
        x = x[:, : self.channels]
        return Prediction(self.name, x, self._probability(x))

    def chances(self, x: Tensor, statistics: Tensor | None = None) -> Tensor | None:
        """The probability of the object "b 1 h w" that a sample states; None for pictures."""
        return self._probability(x[:, :1]) if self.target == "mask" else None

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error of the target, and for masks soft Dice (Milletari et al. 2016) of the
        probabilities: it follows the metric, an overlap, however small the object is, while the
        first also pulls back what lies beyond -1 and 1, where the probability is flat."""
        target, x = self.encode(batch), x[:, : self.channels].float()
        error = masked_mean((x - target.x).abs(), target.valid)
        if self.target == "rgb":
            return error
        return error + soft_dice(self._probability(x), target.x > 0, target.valid)

    def errors(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Squared, and for masks with a share of soft Dice, which counts small objects alike."""
        squared = super().errors(x, target, weight)
        if self.target == "rgb":
            return squared
        dice = soft_dice(((x + 1) / 2).clamp(0, 1), target > 0, weight > 0)
        return squared + DICE * dice * weight.sum(dim=(1, 2, 3))

    def merge(self, members: Tensor) -> Prediction:
        """The members' mean probability, the share of their masks that hold a pixel ("vote"), the
        median sample's, or the most central one's; pictures are read one by one, not averaged."""
        members = members[:, :, : self.channels].clamp(-1, 1)
        chances = torch.stack([self._probability(member) for member in members])
        if len(members) == 1:
            return Prediction(self.name, members[0], chances[0])
        if self.merge_by == "vote":
            chances = (chances > 0.5).to(chances.dtype)
        if self.merge_by == "median":  # of pictures, read once; the lower of two middle values
            prediction = self.decode(members.median(dim=0).values)
        elif self.merge_by == "medoid":
            chosen = most_central(chances)
            prediction = Prediction(self.name, pick(members, chosen), pick(chances, chosen))
        else:
            prediction = Prediction(self.name, members.mean(dim=0), chances.mean(dim=0))
        prediction.uncertainty = chances.std(dim=0, correction=0)
        return prediction

    def score_values(self, stated: Stated, batch: Batch, rule: Protocol) -> Rows:
        modal, amodal, valid = self.require(batch, rule, "modal", "amodal", "amodal_valid")
        return amodal_rows(stated.values > 0.5, modal, amodal, valid, rule)

    def case(self, stated: Stated, batch: Batch, rule: Protocol) -> Case | None:
        modal, whole, valid = batch.modal, batch.amodal, batch.amodal_valid
        if modal is None or whole is None or valid is None:
            return None
        p = stated.values
        return Case(
            ((p > 0.5) != whole).float(),
            scored_pixels(modal, whole, valid, rule),
            doubt=None if stated.chances is None else (p * (1 - p)).clamp(min=0).sqrt(),
            stated=p,
            happened=whole,
            squares=(p.double() - whole.double()).square(),
            outlines=(p > 0.5, whole),
        )

    def formula(self, rule: Protocol) -> Iterator[str]:
        if rule.min_hidden is not None:
            yield f"objects with hidden/whole >= {rule.min_hidden:g}"
        yield "IoU = |P and A| / |P or A|"
        if rule.full_view:
            yield "outside the visible mask: every object, those in full view included"

    def decided(self, batch: Batch, values: Tensor) -> Batch:
        mask = values > 0.5
        return replace(batch, amodal=mask, amodal_valid=torch.ones_like(mask))

    def statistics(self, batch: Batch) -> Tensor:
        return batch.image.new_zeros(0, *batch.image.shape[-2:])  # no baseline is learned

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        (modal,) = require(self.name, batch, "modal")
        return {
            "copied_mask": self._as_prediction(modal),
            "bounding_box": self._as_prediction(bounding_box(modal)),
        }

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        (modal,) = require(self.name, batch, "modal")
        picture = colour_mask(modal, values > 0.5)
        return picture if like is None else only(picture, like.isfinite())

    def legend(self, values: Tensor, like: Tensor | None = None) -> Legend:
        return mask_legend()

    def truth(self, batch: Batch) -> Tensor:
        amodal, valid = require(self.name, batch, "amodal", "amodal_valid")
        return torch.where(valid, amodal.float(), torch.nan)

    def _probability(self, x: Tensor) -> Tensor:
        """Of belonging to the object, "b 1 h w"; 0 or 1 when read off a picture."""
        if self.target == "rgb":
            return silhouette(x, self.threshold, self.background).to(x.dtype)
        return ((x + 1) / 2).clamp(0, 1)

    def _as_prediction(self, mask: Tensor) -> Prediction:
        values = mask.float()
        x = 1 - 2 * values.expand(-1, 3, -1, -1) if self.target == "rgb" else 2 * values - 1
        return Prediction(self.name, x, values)


def soft_dice(probability: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) over valid pixels, "b 1 h w" each -> "b".

    The 1, a pixel, defines the value where there is neither truth nor prediction: 0.
    """
    p = torch.where(valid, probability, 0.0).flatten(1)
    t = (truth & valid).to(p.dtype).flatten(1)
    return 1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)
