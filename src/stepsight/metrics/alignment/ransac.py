"""Scale and shift by random sample consensus (Fischler & Bolles 1981): outliers do not vote.

The pairs of pixels that are tried are a function of the image's key, never of a global generator,
so a score does not depend on the order or the batches in which images are scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.seeding import generator

TRIALS = 100


def ransac_fit(
    pred: Tensor, truth: Tensor, valid: Tensor, keys: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Scale and shift, "b" each, of `pred "b ..."` to `truth` over valid pixels, float64.

    The line through two pixels that most others lie near to, of 100 random pairs, refitted by least
    squares to those within the threshold: the median absolute deviation of the image's truth from
    its median. A line that falls is given up for the factor mean(truth) / mean(pred). Least squares
    where no pair makes a line; NaN without valid pixels.
    """
    assert len(keys) == len(pred), (len(keys), len(pred))
    inliers = torch.stack(
        [_inliers(p, g, v, key) for p, g, v, key in zip(pred.double(), truth.double(), valid, keys)]
    )
    scale, shift = affine_fit(pred, truth, inliers)
    factor = masked.mean(truth, valid) / masked.mean(pred, valid)
    falls = scale < 0
    return torch.where(falls, factor, scale), torch.where(falls, 0.0, shift)


def _inliers(pred: Tensor, truth: Tensor, valid: Tensor, key: str) -> Tensor:
    """The pixels of one image near to the best line, bool of the shape of `valid`."""
    p, g = pred[valid], truth[valid]
    if not len(p):
        return valid
    middle = masked.median(g[None], torch.ones_like(g[None], dtype=torch.bool))
    threshold = masked.median((g - middle)[None].abs(), torch.ones_like(g[None], dtype=torch.bool))
    slopes, shifts = _lines(p, g, key)
    near = [((s * p + t - g).abs() <= threshold).sum() for s, t in zip(slopes, shifts)]
    best = torch.stack(near).argmax()
    if near[int(best)] < 2:
        return valid
    residual = (slopes[best] * torch.where(valid, pred, 0.0) + shifts[best] - truth).abs()
    return valid & (residual <= threshold)


def _lines(p: Tensor, g: Tensor, key: str) -> tuple[Tensor, Tensor]:
    """Slopes and shifts of lines through random pairs of pixels; NaN where a pair has no slope."""
    pairs = torch.randint(len(p), (2, TRIALS), generator=generator("ransac", key)).to(p.device)
    (p_a, p_b), (g_a, g_b) = p[pairs], g[pairs]
    slopes = torch.where(p_a == p_b, torch.nan, (g_b - g_a) / (p_b - p_a))
    return slopes, g_a - slopes * p_a
