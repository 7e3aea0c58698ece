"""Depth scored as the seed of this project showed it: fitted and compared where training sees it.

(Ravishankar et al. 2024, repository scaling-diffusion-perception.) No number in metres follows from
it, and the fit runs over pixels without truth, so it compares with no benchmark.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.metrics.masked import Rows


def normalised_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """Scores of `pred "b 1 h w"` (any affine map of depth) against `truth`, metres.

    With a, b the 2 % and 98 % quantiles of the true depth, g = clip(2 (d - a) / (b - a) - 1, -1, 1)
    and -1 where there is no truth; p = clip(s pred + t, -1, 1), with s and t by least squares over
    all pixels. `mae_normalised` and `rmse_normalised` over valid pixels; the whole range is 2.
    """
    assert pred.shape == truth.shape == valid.shape, (pred.shape, truth.shape, valid.shape)
    g = normalised(truth, valid)
    scale, shift = affine_fit(pred, g, torch.ones_like(valid))
    p = (masked.spread(scale, pred) * pred + masked.spread(shift, pred)).clamp(-1, 1)
    return {
        "n": masked.count(valid),
        "mae_normalised": masked.mean((p - g).abs(), valid),
        "rmse_normalised": masked.mean((p - g).square(), valid).sqrt(),
    }


def normalised(depth: Tensor, valid: Tensor) -> Tensor:
    """Depth "b 1 h w" between its image's 2 % and 98 % quantiles as -1 .. 1; -1 where not valid."""
    known = torch.where(valid, depth.double(), torch.nan).flatten(1)
    levels = torch.tensor([0.02, 0.98], dtype=known.dtype, device=known.device)
    ends = torch.stack([image.nanquantile(levels) for image in known])  # a batch may be too large
    low, high = ends[:, :, None, None, None].unbind(1)
    scaled = 2 * (depth.double() - low) / (high - low).clamp(min=1e-6) - 1
    return torch.where(valid, scaled.clamp(-1, 1), -1.0)
