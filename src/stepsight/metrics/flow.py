"""Optical flow metrics, one row per image."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol

BY_OCCLUSION = ("epe", "below_1px", "below_3px", "below_5px", "fl_all", "wauc")
SPEEDS = {"s0_10": (0.0, 10.0), "s10_40": (10.0, 40.0), "s40": (40.0, torch.inf)}  # pixels


def flow_rows(pred: Tensor, truth: Tensor, valid: Tensor, occluded: Tensor | None = None) -> Rows:
    """Scores of `pred "b 2 h w"` against `truth`, pixels, where `valid "b 1 h w"`. All are shares
    or means over an image's valid pixels of the end-point error ||pred - truth||_2:
        epe        its mean, pixels
        below_Npx  share below N = 1, 3, 5 pixels (what RAFT prints as Npx)
        above_1px  share above 1 pixel, Spring's 1px
        fl_all     share of outliers, above 3 pixels and above 5 % of ||truth|| (KITTI 2015)
        wauc       percent, see `wauc`
        aae        mean angle between (u, v, 1) of both, degrees (Barron et al. 1994)
    and `<metric>_<part>` over a part of them, counted by `n_<part>`: all but the last two of
    `matched` pixels, which the second image shows (not `occluded "b 1 h w"`), and of `unmatched`
    ones; `epe` of true lengths s0_10, s10_40, s40 (below 10, from 10 to below 40, from 40 pixels;
    Butler et al. 2012). Without `occluded` the first two are empty.
    """
    assert pred.shape == truth.shape and valid.shape[1] == 1, (pred.shape, truth.shape, valid.shape)
    error = (pred.double() - truth.double()).norm(dim=1, keepdim=True)
    length = truth.double().norm(dim=1, keepdim=True)
    maps = {
        "epe": error,
        **{f"below_{n}px": error < n for n in (1, 3, 5)},
        "fl_all": (error > 3) & (error > 0.05 * length),
        "wauc": wauc(error),
        "above_1px": error > 1,
        "aae": _angle(pred, truth),
    }
    rows = {"n": masked.count(valid)} | {k: masked.mean(x, valid) for k, x in maps.items()}
    for part, where in _parts(length, valid, occluded).items():
        names = ("epe",) if part in SPEEDS else BY_OCCLUSION
        rows |= {f"{name}_{part}": masked.mean(maps[name], where) for name in names}
        rows[f"n_{part}"] = masked.count(where)
    return rows


def scored_pixels(truth: Tensor, valid: Tensor, protocol: Protocol) -> Tensor:
    """The pixels that count, bool "b 1 h w": valid, and shorter than `max_flow`."""
    if protocol.max_flow is None:
        return valid
    return valid & (truth.norm(dim=1, keepdim=True) < protocol.max_flow)


def wauc(error: Tensor) -> Tensor:
    """The weighted area under the inlier curve, as a value per pixel, percent (Spring, Mehl et al.
    2023, after VIPER, Richter et al. 2017).

    100 sum_i w_i [error <= i/20] / sum_i w_i with w_i = 1 - (i - 1)/100, i = 1 .. 100: from the
    first threshold j that the error does not exceed, the sum has the closed form below. Both sides
    are compared in float32, as in ptlflow, which decides errors that are a threshold.
    """
    thresholds = (torch.arange(1, 101, dtype=torch.float64) / 20).float().to(error.device)
    beyond = torch.bucketize(error.float(), thresholds).double()  # thresholds that it exceeds
    return (100 - beyond) * (101 - beyond) / 101


def axis_fit(pred: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """`pred "b 2 h w"` with u and v each fitted to its own truth by scale and shift, float64."""
    fitted = []
    for p, g in zip(pred.double().split(1, dim=1), truth.split(1, dim=1)):
        scale, shift = affine_fit(p, g, valid)
        fitted.append(masked.spread(scale, p) * p + masked.spread(shift, p))
    return torch.cat(fitted, dim=1)


def _angle(pred: Tensor, truth: Tensor) -> Tensor:
    """Between (u, v, 1) of both, degrees, "b 1 h w"."""
    dot = 1 + (pred.double() * truth.double()).sum(1, keepdim=True)
    lengths = [(1 + x.double().square().sum(1, keepdim=True)).sqrt() for x in (pred, truth)]
    return (dot / (lengths[0] * lengths[1])).clamp(-1, 1).acos().rad2deg()


def _parts(length: Tensor, valid: Tensor, occluded: Tensor | None) -> dict[str, Tensor]:
    """Bool "b 1 h w" by name: where the second image shows the pixel or not, and how fast it is."""
    none = torch.zeros_like(valid)
    seen = {
        "matched": none if occluded is None else valid & ~occluded,
        "unmatched": none if occluded is None else valid & occluded,
    }
    return seen | {
        name: valid & (length >= low) & (length < high) for name, (low, high) in SPEEDS.items()
    }
