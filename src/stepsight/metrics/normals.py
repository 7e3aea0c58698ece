"""Surface normal metrics, one row per image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows


def normals_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """Scores of directions `pred "b 3 h w"` (any length) against `truth`, where `valid "b 1 h w"`.

    `mean_angle`, `median_angle` in degrees, and `below_A`, the share of valid pixels with an angle
    below A = 11.25, 22.5, 30 degrees (Fouhey et al. 2013). A zero vector counts as 90 degrees off.
    """
    assert pred.shape == truth.shape and valid.shape[1] == 1, (pred.shape, truth.shape, valid.shape)
    cosine = F.cosine_similarity(pred.double(), truth.double(), dim=1)[:, None]
    angle = cosine.clamp(-1, 1).acos().rad2deg()
    rows = {
        "n": masked.count(valid),
        "mean_angle": masked.mean(angle, valid),
        "median_angle": masked.median(angle, valid),
    }
    return rows | {f"below_{a:g}": masked.mean(angle < a, valid) for a in (11.25, 22.5, 30.0)}
