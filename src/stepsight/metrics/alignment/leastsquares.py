"""Scale and shift by least squares, all images of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked

FLAT = 1e-24  # variance over mean square below which a prediction is constant up to rounding


def affine_fit(pred: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale s and shift t, "b" each, that minimise sum (s pred + t - truth)^2 over valid pixels.

    The masked normal equations in closed form, centred, in float64: s = cov(p, g) / var(p),
    t = mean g - s mean p. A constant prediction (no variance) gives s = 0, t = mean g. A negative s
    is legal. NaN for an image without valid pixels.
    """
    p, g = pred.double(), truth.double()
    p_mean, g_mean = masked.mean(p, valid), masked.mean(g, valid)
    centred = p - masked.spread(p_mean, p)
    variance = masked.mean(centred.square(), valid)
    covariance = masked.mean(centred * (g - masked.spread(g_mean, g)), valid)
    flat = variance <= FLAT * masked.mean(p.square(), valid)
    scale = torch.where(flat, 0.0, covariance / variance)
    return scale, g_mean - scale * p_mean
