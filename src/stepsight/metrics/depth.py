"""Depth metrics (the usual set of Eigen et al. 2014 and the KITTI benchmark), one row an image."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment import align
from stepsight.metrics.edges import edge_rows
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol


def depth_rows(pred: Tensor, truth: Tensor, valid: Tensor, protocol: Protocol) -> Rows:
    """Scores of `pred "b 1 h w"` against `truth "b 1 h w"`, metres, where `valid "b 1 h w"`.

    Truth outside the protocol's range is not scored; the prediction is aligned, then clipped to it.
    With p the prediction, g the truth, e = ln p - ln g and means over an image's n valid pixels:
        abs_rel   mean |p - g| / g
        deltaK    share with max(p/g, g/p) < 1.25^K, K = 1, 2
        rmse      sqrt(mean (p - g)^2), metres
        rmse_log  sqrt(mean e^2)
        log10     mean |log10 p - log10 g|
        silog     100 sqrt(mean e^2 - (mean e)^2), the form of KITTI and Marigold
        edge_f1   see `edges`
    Raises UserError where log or disparity alignment meets a prediction <= 0.
    """
    assert pred.shape == truth.shape == valid.shape, (pred.shape, truth.shape, valid.shape)
    low, high, space = protocol.min_depth, protocol.max_depth, protocol.space
    assert low is not None and high is not None and space is not None, protocol.name
    valid = valid & (truth >= low) & (truth <= high)
    p = align(pred, truth, valid, protocol.alignment, space).clamp(low, high)
    rows = _errors(p, truth.double(), valid)
    return {"n": masked.count(valid)} | rows | edge_rows(p, truth, valid)


def _errors(p: Tensor, g: Tensor, valid: Tensor) -> Rows:
    e = p.log() - g.log()
    ratio = torch.maximum(p / g, g / p)
    scatter = e - masked.spread(masked.mean(e, valid), e)  # centred: no cancellation in silog
    return {
        "abs_rel": masked.mean((p - g).abs() / g, valid),
        "delta1": masked.mean(ratio < 1.25, valid),
        "delta2": masked.mean(ratio < 1.25**2, valid),
        "rmse": masked.mean((p - g).square(), valid).sqrt(),
        "rmse_log": masked.mean(e.square(), valid).sqrt(),
        "log10": masked.mean((p.log10() - g.log10()).abs(), valid),
        "silog": 100 * masked.mean(scatter.square(), valid).sqrt(),
    }
