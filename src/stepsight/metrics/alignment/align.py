"""Fitting a prediction to the truth before it is scored, where only relative depth is promised.

A rule (how many numbers are fitted, and how) acts in a space (what they are fitted to). Scores of
different rules or spaces are not comparable, which is why both are part of a protocol's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError
from stepsight.metrics import masked
from stepsight.metrics.alignment.absolute import absolute_fit
from stepsight.metrics.alignment.leastsquares import affine_fit
from stepsight.metrics.alignment.ransac import ransac_fit

Rule = Literal["none", "median", "scale", "affine", "ransac_regressor", "scale_l1", "affine_l1"]
Space = Literal["depth", "log", "log1p", "disparity"]

FITTED: Mapping[
    Rule, int
] = {  # how many numbers: so many pixels are met exactly, whatever is there
    "none": 0,
    "median": 1,
    "scale": 1,
    "scale_l1": 1,
    "affine": 2,
    "affine_l1": 2,
    "ransac_regressor": 2,
}
KIN = {"depth": "depth-affine", "disparity": "marigold-disparity"}  # protocols of these spaces
EXPONENTIALS = {"log": torch.exp, "log1p": torch.expm1}  # back from these spaces
MIN_DISPARITY = 1e-3  # 1/m; the floor of Marigold's least_square_disparity


def align(
    pred: Tensor,
    truth: Tensor,
    valid: Tensor,
    rule: Rule,
    space: Space = "depth",
    *,
    given: Space = "depth",
    fit_rows: int | None = None,
    fit_positive: bool = False,
    fit_width: int | None = None,
    keys: Sequence[str] = (),
) -> Tensor:
    """`pred "b 1 h w"` fitted to `truth "b 1 h w"`, metres, image by image; float64 metres.

    `given` says what the predicted values are: metres, 1/metres or logarithms, if only up to the
    fit. Values given in the space of the fit enter it as they are, so affine-invariant disparity
    may be 0 or negative. `fit_rows` restricts the fit to the first rows, `fit_positive` to
    pixels whose prediction is positive in the space of the fit, `fit_width` thins it (`thinned`);
    `keys` name the images where pixels are drawn (RANSAC).

    In disparity space the fitted 1/depth is floored at 1e-3 per metre (Marigold,
    `least_square_disparity`). Raises UserError where a value that is not positive, or NaN, has to
    pass from depth or disparity into another space.
    """
    target = "depth" if rule == "none" else space
    x = pred.double()
    if given != target:
        x = into(_depth(x, valid, given, target), target)
    if rule == "none":
        return x
    seen = valid & (x > 0) if fit_positive else valid
    maps = (x, into(truth.double(), space), seen)
    parts = [thinned(part[..., :fit_rows, :], fit_width) for part in maps]
    scale, shift = fit(parts[0], parts[1], parts[2] > 0, rule, space, keys)
    return back(masked.spread(scale, x) * x + masked.spread(shift, x), space)


def fit(
    p: Tensor, g: Tensor, valid: Tensor, rule: Rule, space: Space, keys: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Scale and shift, "b" each, of a rule other than none; `p`, `g` are already in `space`.

    `median` (med g / med p) and `scale` (sum pg / sum p^2) fit one factor. In log space a factor of
    the depth is a shift, so there they fit the difference of medians and of means. Those of
    absolute errors ("_l1") are of depth alone.
    """
    one, zero = torch.ones_like(p.flatten(1)[:, 0]), torch.zeros_like(p.flatten(1)[:, 0])
    match rule, space:
        case "affine", _:
            return affine_fit(p, g, valid)
        case "ransac_regressor", _:
            return ransac_fit(p, g, valid, keys)
        case "scale_l1" | "affine_l1", _:
            return absolute_fit(p, g, valid, shifted=rule == "affine_l1")
        case "median", "log":
            return one, masked.median(g, valid) - masked.median(p, valid)
        case "median", _:
            return masked.median(g, valid) / masked.median(p, valid), zero
        case "scale", "log":
            return one, masked.mean(g - p, valid)
        case "scale", _:
            return masked.total(p * g, valid) / masked.total(p * p, valid), zero
    raise AssertionError(f"no alignment rule {rule!r}")


def thinned(x: Tensor, width: int | None) -> Tensor:
    """`x "b 1 h w"` as the fit sees it if its longer side exceeds `width`; unchanged otherwise.

    Marigold's `align_depth_least_square(max_resolution=...)` upsamples a tensor of three axes, so
    by nearest neighbour it reduces the columns, by width / longer side, and keeps every row. Scores
    under its ETH3D protocol were made in this way.
    """
    factor = 1.0 if width is None else width / max(x.shape[-2:])
    if factor >= 1:
        return x
    return F.interpolate(x[:, 0].double(), scale_factor=factor, mode="nearest")[:, None]


def into(depth: Tensor, space: Space) -> Tensor:
    """Metres to the space of the fit."""
    forward = {"disparity": torch.reciprocal, "log": torch.log, "log1p": torch.log1p}
    return depth if space == "depth" else forward[space](depth)


def back(x: Tensor, space: Space) -> Tensor:
    """The space of the fit to metres."""
    if space == "disparity":
        return x.clamp(min=MIN_DISPARITY).reciprocal()
    return x if space == "depth" else EXPONENTIALS[space](x)


def _depth(pred: Tensor, valid: Tensor, given: Space, target: Space) -> Tensor:
    """Predicted values as depth, on their way to `target`, which is another space."""
    if given in EXPONENTIALS:
        return EXPONENTIALS[given](pred)
    least = -1.0 if target == "log1p" and given == "depth" else 0.0
    bad = int((valid & ~(pred > least)).sum())
    if bad:
        fault = "not above -1" if least else "not positive"
        raise UserError(
            f"The predicted {given} is {fault} at {bad} valid pixels, so it cannot be aligned "
            f"in {target} space. Predict positive values, or choose a protocol that aligns in "
            f"{given} space, such as '{KIN[given]}'."
        )
    return pred.reciprocal() if given == "disparity" else pred
