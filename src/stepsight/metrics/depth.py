"""Depth metrics (the usual set of Eigen et al. 2014 and the KITTI benchmark), one row per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.align import FITTED, Space, align
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.boundaries import boundary_rows, contour_rows
from stepsight.metrics.masks.edges import edge_rows
from stepsight.metrics.masks.regions import region
from stepsight.metrics.protocol import Protocol

TINY = 1e-6  # metres; keeps logarithms and ratios of predictions finite (Marigold, `eval.py`)


def depth_rows(
    pred: Tensor,
    truth: Tensor,
    valid: Tensor,
    protocol: Protocol,
    *,
    given: Space = "depth",
    keys: Sequence[str] = (),
) -> Rows:
    """Scores of `pred "b 1 h w"` against `truth "b 1 h w"`, metres, where `valid "b 1 h w"`.

    Truth outside the protocol's region and range is not scored; the prediction is aligned, then
    clipped (`given`, `keys`: see `alignment.align`). Either may be scored as disparity instead.
    With p the prediction, g the truth, e = ln p - ln g and means over an image's n scored pixels:
        abs_rel     mean |p - g| / (g + epsilon)
        sq_rel      mean (p - g)^2 / g, metres
        deltaK      share with max(p/g, g/p) < 1.25^K, K = 0.5, 1, 2, 3
        above_1.25  share with max(p/g, g/p) > 1.25, MiDaS's error
        rmse, irmse sqrt(mean (p - g)^2), metres; the same of 1/p and 1/g, 1/metres
        rmse_log    sqrt(mean e^2)
        log10       mean |log10 p - log10 g|
        silog       100 sqrt(mean e^2 - (mean e)^2), the form of KITTI and Marigold
        silog_half  sqrt(mean e^2 - (mean e)^2 / 2), that of Depth Anything V2's metric code
        edge_f1, boundary_f1, contour_f1_Npx    see `masks.edges`, `masks.boundaries`
    Raises UserError where the alignment meets a value it cannot take, or the region another size.
    """
    assert pred.shape == truth.shape == valid.shape, (pred.shape, truth.shape, valid.shape)
    assert protocol.space is not None, protocol.name
    scored = scored_pixels(truth, valid, protocol)
    fitted = align(
        pred,
        truth,
        scored,
        protocol.alignment,
        protocol.space,
        given=given,
        fit_positive=protocol.fit_positive,
        fit_width=protocol.fit_width,
        keys=keys,
    )
    p, g = clipped(fitted, truth, scored, protocol), truth.double()
    if protocol.scored_in == "disparity":
        p, g = p.reciprocal(), g.reciprocal()
    rows = {"n": masked.count(scored)} | _errors(p, g, scored, protocol.epsilon)
    if "boundary_f1" in protocol.metrics:
        rows |= boundary_rows(p, g, scored)
    if "contour_f1_1px" in protocol.metrics:  # before the range flattens what is far
        rows |= contour_rows(fitted.clamp(min=TINY), truth, scored)
    if protocol.metrics and "edge_f1" not in protocol.metrics:
        return rows  # edges take longer than all the rest
    return rows | edge_rows(p, g, scored)


def scored_pixels(truth: Tensor, valid: Tensor, protocol: Protocol) -> Tensor:
    """The pixels that count, bool "b 1 h w": valid, in the region and in the range; none of an
    image that has fewer than the protocol's `min_valid`, or no more than its fit meets exactly."""
    scored = valid & region(protocol.mask, *truth.shape[-2:]).to(valid.device)
    if protocol.selects:
        low = -torch.inf if protocol.min_depth is None else protocol.min_depth
        high = torch.inf if protocol.max_depth is None else protocol.max_depth
        inside = (truth > low) & (truth < high) if protocol.strict else _between(truth, low, high)
        scored = scored & inside
    fewest = max(protocol.min_valid or 0, FITTED[protocol.alignment] + 1)
    return scored & masked.spread(masked.count(scored) >= fewest, scored)


def clipped(depth: Tensor, truth: Tensor, scored: Tensor, protocol: Protocol) -> Tensor:
    """Aligned metres brought into the range, or to no more than the image's largest true depth."""
    if protocol.clip == "none":
        return depth.clamp(min=TINY)
    low = max(protocol.min_depth or 0.0, TINY)
    if protocol.clip == "range":
        return depth.clamp(low, protocol.max_depth)
    farthest = torch.where(scored, truth.double(), -torch.inf).flatten(1).amax(1)
    return torch.minimum(depth.clamp(min=low), masked.spread(farthest, depth))


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return (x >= low) & (x <= high)


def _errors(p: Tensor, g: Tensor, valid: Tensor, epsilon: float) -> Rows:
    e = p.log() - g.log()
    ratio = torch.maximum(p / g, g / p)
    bias = masked.mean(e, valid)
    spread = masked.mean((e - masked.spread(bias, e)).square(), valid)  # no cancellation
    return {
        "abs_rel": masked.mean((p - g).abs() / (g + epsilon), valid),
        "sq_rel": masked.mean((p - g).square() / g, valid),
        "delta0.5": masked.mean(ratio < 1.25**0.5, valid),
        "delta1": masked.mean(ratio < 1.25, valid),
        "delta2": masked.mean(ratio < 1.25**2, valid),
        "delta3": masked.mean(ratio < 1.25**3, valid),
        "above_1.25": masked.mean(ratio > 1.25, valid),
        "rmse": masked.mean((p - g).square(), valid).sqrt(),
        "irmse": masked.mean((1 / p - 1 / g).square(), valid).sqrt(),
        "rmse_log": masked.mean(e.square(), valid).sqrt(),
        "log10": masked.mean((p.log10() - g.log10()).abs(), valid),
        "silog": 100 * spread.sqrt(),
        "silog_half": (spread + bias.square() / 2).sqrt(),
    }
