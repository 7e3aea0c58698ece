"""Scale and shift that minimise the sum of absolute errors over true depth, as MoGe's evaluator
fits them (Wang et al. 2025; microsoft/MoGe, `test/metrics.py`, `utils/alignment.py`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stepsight.metrics import masked

CELLS = 64  # along either side of an image
ON = 1e-12  # of the largest depth: a point so near to a line is on it


def absolute_fit(
    pred: Tensor, truth: Tensor, valid: Tensor, *, shifted: bool
) -> tuple[Tensor, Tensor]:
    """Scale s and shift t, "b" each, float64, that minimise sum |s pred + t - truth| / truth over
    the pixels `sampled` from `valid`, all "b 1 h w"; t = 0 unless `shifted`. NaN for an image
    without valid pixels."""
    fits = list[tuple[float, float]]()
    for p, g, v in zip(pred.double(), truth.double(), valid):
        places = sampled(v[0])
        fits.append(_line(p.flatten()[places], g.flatten()[places], shifted))
    scale, shift = torch.tensor(fits, dtype=torch.float64, device=pred.device).unbind(-1)
    return scale, shift


def sampled(valid: Tensor) -> Tensor:
    """For each of 64 x 64 cells over a mask "h w" the valid pixel nearest to its centre, of several
    the first, as indices "n" of the flat map; none where a cell has no valid pixel. In a map that
    is smaller than the grid a pixel stands for several cells."""
    (rows, down), (columns, across) = (_windows(n, valid.device) for n in valid.shape)
    places = (rows[:, None, :, None] * valid.shape[1] + columns[:, None, :]).flatten(2)
    distances = (down[:, None, :, None] + across[:, None, :]).flatten(2)
    distances = torch.where(valid.flatten()[places], distances, torch.inf)
    nearest = distances.argmin(dim=2, keepdim=True)
    return places.gather(2, nearest)[distances.gather(2, nearest).isfinite()]


def _windows(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pixels that each cell may take along a side of `length`, "64 k", and their squared
    distances from its centre, infinite outside. In float32, whose rounding decides ties."""
    size = max(1.0, length / CELLS)
    centres = (torch.arange(CELLS, device=device) + 0.5) / CELLS * length
    first = (centres - size / 2).round().long()
    pixels = first[:, None] + torch.arange(math.ceil(size), device=device)
    distances = (pixels + 0.5 - centres[:, None]).square()
    outside = (pixels < 0) | (pixels >= length)
    return pixels.clamp(0, length - 1), distances.masked_fill(outside, torch.inf)


def _line(p: Tensor, g: Tensor, shifted: bool) -> tuple[float, float]:
    """The best line through points "n": one that passes through two of them. Starting anywhere, it
    is turned about the points that it passes through as long as that helps (Wesolowsky 1981); the
    sum is convex, so that the end is the least there is."""
    if not len(p):
        return math.nan, math.nan
    weight = g.reciprocal()
    if not shifted:
        return _slope(p, g, weight), 0.0
    middle = masked.median(p[None], torch.ones_like(p[None], dtype=torch.bool))
    pivots = [int((p - middle).abs().argmin())]
    least, line, tried = math.inf, (math.nan, math.nan), set[int]()
    while pivots:
        at = pivots.pop()
        tried.add(at)
        slope = _slope(p - p[at], g - g[at], weight)
        residual = (slope * (p - p[at]) + g[at] - g).abs()
        loss = float((weight * residual).sum())
        if loss < least * (1 - ON):
            least, line, tried = loss, (slope, float(g[at] - slope * p[at])), {at}
            pivots = torch.nonzero(residual <= ON * g.max())[:, 0].tolist()
        pivots = [pivot for pivot in pivots if pivot not in tried]
    return line


def _slope(x: Tensor, y: Tensor, weight: Tensor) -> float:
    """The s that minimises sum weight |s x - y|: the weighted (lower) median of y / x."""
    ratio, order = torch.where(x == 0, 0.0, y / x).sort()
    reached = (weight * x.abs())[order].cumsum(0)
    return float(ratio[torch.searchsorted(reached, reached[-1] / 2).clamp(max=len(x) - 1)])
