"""Surface normal metrics, one row per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows

LIMITS = (5.0, 7.5, 11.25, 22.5, 30.0)  # degrees
STEP = 0.01  # degrees, to which angles are rounded before they are counted


def normals_rows(pred: Tensor, truth: Tensor, valid: Tensor, *, pooled: bool = False) -> Rows:
    """Scores of directions `pred "b 3 h w"` (any length) against `truth`, where `valid "b 1 h w"`.

    `mean_angle`, `median_angle` and `rmse_angle`, the root of the mean square, in degrees, and
    `below_A`, the share of valid pixels with an angle below A = 5, 7.5, 11.25, 22.5, 30 degrees
    (Fouhey et al. 2013; Bae & Davison 2024). A zero vector counts as 90 degrees off. The median of
    the pixels of a set does not follow from those of its images: if `pooled`, `angles` stands in
    the place of `median_angle` (`counted`).
    """
    assert pred.shape == truth.shape and valid.shape[1] == 1, (pred.shape, truth.shape, valid.shape)
    cosine = F.cosine_similarity(pred.double(), truth.double(), dim=1)[:, None]
    angle = cosine.clamp(-1, 1).acos().rad2deg()
    median = {"median_angle": masked.median(angle, valid)} if not pooled else {}
    return {
        "n": masked.count(valid),
        "mean_angle": masked.mean(angle, valid),
        **median,
        "rmse_angle": masked.mean(angle.square(), valid).sqrt(),
        **{f"below_{a:g}": masked.mean(angle < a, valid) for a in LIMITS},
        **({"angles": counted(angle, valid)} if pooled else {}),
    }


def counted(angle: Tensor, valid: Tensor) -> Tensor:
    """How many valid pixels of each image have an angle of 0, 0.01, .. 180 degrees, rounded to the
    nearest: degrees "b 1 h w" -> "b 18001"."""
    bins = round(180 / STEP) + 1
    image = torch.arange(len(angle), device=angle.device).view(-1, 1, 1, 1)
    cells = image * bins + (angle / STEP).round().long()
    counts = torch.bincount(cells[valid], minlength=len(angle) * bins)
    return counts.double().reshape(len(angle), bins)


def median_angle(angles: Tensor) -> Tensor:
    """The median of `counted` angles, degrees "... 18001" -> "...": that of the rounded angles, so
    within 0.005 degrees of the exact one. NaN where nothing was counted."""
    count = angles.sum(-1, keepdim=True)
    middle = torch.cat([(count - 1).div(2, rounding_mode="floor"), (count / 2).floor()], dim=-1)
    places = torch.searchsorted(angles.cumsum(-1), middle, right=True)
    return torch.where(count[..., 0] > 0, STEP * places.double().mean(-1), torch.nan)
