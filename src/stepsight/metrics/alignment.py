"""Fitting a prediction to the truth before it is scored, where only relative depth is promised.

A rule (how many numbers are fitted) acts in a space (what they are fitted to). Scores of different
rules or spaces are not comparable, which is why both are part of a protocol's id.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.metrics import masked

Rule = Literal["none", "median", "scale", "affine"]
Space = Literal["depth", "log", "disparity"]

FLAT = 1e-24  # variance over mean square below which a prediction is constant up to rounding
MIN_DISPARITY = 1e-3  # 1/m; the floor of Marigold's least_square_disparity


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


def fit(p: Tensor, g: Tensor, valid: Tensor, rule: Rule, space: Space) -> tuple[Tensor, Tensor]:
    """Scale and shift, "b" each, of a rule other than none; `p`, `g` are already in `space`.

    `median` (med g / med p) and `scale` (sum pg / sum p^2) fit one factor. In log space a factor of
    the depth is a shift, so there they fit the difference of medians and of means.
    """
    one, zero = torch.ones_like(p.flatten(1)[:, 0]), torch.zeros_like(p.flatten(1)[:, 0])
    match rule, space:
        case "affine", _:
            return affine_fit(p, g, valid)
        case "median", "log":
            return one, masked.median(g, valid) - masked.median(p, valid)
        case "median", _:
            return masked.median(g, valid) / masked.median(p, valid), zero
        case "scale", "log":
            return one, masked.mean(g - p, valid)
        case "scale", _:
            return masked.total(p * g, valid) / masked.total(p * p, valid), zero
    raise AssertionError(f"no alignment rule {rule!r}")


def align(pred: Tensor, truth: Tensor, valid: Tensor, rule: Rule, space: Space = "depth") -> Tensor:
    """`pred "b 1 h w"`, metres, fitted to `truth` image by image; float64 metres.

    In disparity space the fitted 1/depth is floored at 1e-3 per metre (Marigold,
    `least_square_disparity`). Raises UserError where log or disparity meets a depth <= 0 or NaN.
    """
    if rule == "none":
        return pred.double()
    if space != "depth":
        _refuse_non_positive(pred, valid, space)
    p, g = into(pred.double(), space), into(truth.double(), space)
    scale, shift = fit(p, g, valid, rule, space)
    return back(masked.spread(scale, p) * p + masked.spread(shift, p), space)


def into(depth: Tensor, space: Space) -> Tensor:
    """Metres to the space of the fit."""
    if space == "disparity":
        return depth.reciprocal()
    return depth.log() if space == "log" else depth


def back(x: Tensor, space: Space) -> Tensor:
    """The space of the fit to metres."""
    if space == "disparity":
        return x.clamp(min=MIN_DISPARITY).reciprocal()
    return x.exp() if space == "log" else x


def _refuse_non_positive(pred: Tensor, valid: Tensor, space: Space) -> None:
    bad = int((valid & ~(pred > 0)).sum())
    if bad:
        raise UserError(
            f"The predicted depth is not positive at {bad} valid pixels, so it cannot be aligned "
            f"in {space} space. Predict positive depths, or choose a protocol that aligns in depth "
            "space, such as 'depth-affine'."
        )
