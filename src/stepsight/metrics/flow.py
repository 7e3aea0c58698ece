"""Optical flow metrics, one row an image."""

from __future__ import annotations

from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows


def flow_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """Scores of `pred "b 2 h w"` against `truth`, pixels, where `valid "b 1 h w"`. All are shares
    or means over an image's valid pixels of the end-point error ||pred - truth||_2:
        epe        its mean, pixels
        below_1px  share below 1 pixel (what RAFT prints as 1px)
        fl_all     share of outliers, above 3 pixels and above 5 % of ||truth|| (KITTI 2015)
    """
    assert pred.shape == truth.shape and valid.shape[1] == 1, (pred.shape, truth.shape, valid.shape)
    error = (pred.double() - truth.double()).norm(dim=1, keepdim=True)
    length = truth.double().norm(dim=1, keepdim=True)
    return {
        "n": masked.count(valid),
        "epe": masked.mean(error, valid),
        "below_1px": masked.mean(error < 1, valid),
        "fl_all": masked.mean((error > 3) & (error > 0.05 * length), valid),
    }
