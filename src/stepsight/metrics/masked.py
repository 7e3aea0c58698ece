"""Sums, means and medians over the valid pixels of each image: what every metric is made of.

All take `x "b ..."` with a boolean `valid` of the same shape and return one float64 number per
image. Whatever stands at an invalid pixel, NaN included, is never looked at. An image without any
valid pixel has count 0 and mean and median NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

Rows = dict[str, Tensor]  # name -> float64 "b" (confusion: "b k k"); "n" counts what was measured


def count(valid: Tensor) -> Tensor:
    """Number of valid pixels, "b ..." -> "b"."""
    return valid.flatten(1).sum(1, dtype=torch.float64)


def total(x: Tensor, valid: Tensor) -> Tensor:
    """Sum over valid pixels, "b ..." -> "b"."""
    return torch.where(valid, x.double(), 0.0).flatten(1).sum(1)


def mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels, "b ..." -> "b"."""
    return total(x, valid) / count(valid)


def median(x: Tensor, valid: Tensor) -> Tensor:
    """Median over valid pixels, "b ..." -> "b"; of an even number the mean of the middle two.

    (`torch.median` would take the lower of the two; `torch.nanquantile` refuses large batches.)
    """
    ordered = torch.where(valid, x.double(), torch.inf).flatten(1).sort(1).values
    n = valid.flatten(1).sum(1, keepdim=True)
    middle = torch.cat([(n - 1).clamp(min=0) // 2, n // 2], dim=1)
    values = ordered.gather(1, middle.clamp(max=ordered.shape[1] - 1)).mean(1)
    return torch.where(n[:, 0] > 0, values, torch.nan)


def spread(value: Tensor, x: Tensor) -> Tensor:
    """One number per image, "b", shaped to broadcast against `x "b ..."`."""
    return value.reshape(-1, *[1] * (x.ndim - 1))
