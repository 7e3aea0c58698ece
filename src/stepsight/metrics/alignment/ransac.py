"""Scale and shift by random sample consensus (Fischler & Bolles 1981): outliers do not vote.

The steps are those of scikit-learn's `RANSACRegressor` with its defaults around a straight line, so
that with the generator in the same state the same pairs of pixels are drawn and the same line is
found. A score draws them by the image's key, never from a global generator, and so does not depend
on the order or the batches in which images are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.seeding import seed_of

TRIALS = 1000  # at most; Pixel-Perfect Depth, `recover_metric_depth_ransac`
CERTAIN = 0.99  # chance of a pair without outliers at which no more are tried
PERMUTED = 0.01  # share of the pixels that a pair is, above which all are permuted to draw it


def ransac_fit(
    pred: Tensor, truth: Tensor, valid: Tensor, keys: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Scale and shift, "b" each, of `pred "b ..."` to `truth` over valid pixels, float64.

    Least squares on the `consensus` of each image. A line that does not rise is given up for the
    factor mean(truth) / mean(pred); without a consensus scale 1, shift 0.
    """
    draws = [RandomState(seed_of("ransac", key) % 2**32) for key in keys]
    return consensus_fit(pred, truth, valid, draws)


def consensus_fit(
    pred: Tensor, truth: Tensor, valid: Tensor, draws: Sequence[RandomState]
) -> tuple[Tensor, Tensor]:
    """The same with a generator per image."""
    assert len(draws) == len(pred), (len(draws), len(pred))
    inliers = torch.zeros_like(valid)
    for image, (p, g, where, draw) in enumerate(zip(pred.double(), truth.double(), valid, draws)):
        inliers[image, where] = consensus(p[where], g[where], draw)
    scale, shift = affine_fit(pred, truth, inliers)
    factor = masked.mean(truth, valid) / masked.mean(pred, valid)
    rises, lost = scale > 0, masked.count(inliers) == 0
    scale = torch.where(lost, 1.0, torch.where(rises, scale, factor))
    return scale, torch.where(rises & ~lost, shift, 0.0)


def consensus(p: Tensor, g: Tensor, draw: RandomState) -> Tensor:
    """The points that lie near the best of the lines that were tried, bool "n", of `p`, `g` "n".

    A line passes through two points (level where their p is the same), and near is within the
    median absolute deviation of g from its median. The best has most points near, of equally many
    the largest R^2 on them. Tried are 1000 lines, or fewer once a pair of near points has been
    drawn with a chance of 99 %, if as many are inliers as near the best one.
    """
    best, near, trials = (1, -math.inf), torch.zeros_like(p, dtype=torch.bool), TRIALS
    if len(p) < 2:
        return near
    everywhere = torch.ones_like(near)[None]
    middle = masked.median(g[None], everywhere)
    threshold = masked.median((g - middle).abs()[None], everywhere)
    trial = 0
    while trial < trials:
        trial += 1
        pair = _pair(len(p), draw)
        (p_a, p_b), (g_a, g_b) = p[pair].tolist(), g[pair].tolist()
        slope = 0.0 if p_a == p_b else (g_b - g_a) / (p_b - p_a)
        residual = (g - (g_a + g_b) / 2 - slope * (p - (p_a + p_b) / 2)).abs()
        inside = residual <= threshold
        count = int(inside.sum())
        if count < best[0]:
            continue
        spread = (g[inside] - g[inside].mean()).square().sum()
        found = count, float(1 - residual[inside].square().sum() / spread)
        if not found < best:  # a later line that is as good replaces an earlier one
            best, near = found, inside
            trials = min(trials, _enough(count / len(p)))
    return near


def _pair(count: int, draw: RandomState) -> list[int]:
    """Two of `count` points, as scikit-learn's `sample_without_replacement` draws them."""
    if PERMUTED < 2 / count < 1 - PERMUTED:
        return draw.permutation(count)[:2].tolist()
    first = second = draw.randint(count)
    while second == first:
        second = draw.randint(count)
    return [first, second]


def _enough(share: float) -> int:
    """Pairs to draw for one without outliers, where `share` of the points are inliers."""
    hit = min(share**2, 1 - np.finfo(float).eps)
    return math.ceil(math.log(1 - CERTAIN) / math.log1p(-hit))
