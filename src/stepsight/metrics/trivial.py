"""Predictors that know nothing of the image: the floors every model has to beat.

A mean map or prior map is gathered over training batches: add up what `accumulate_mean_map` or
`class_counts` returns, then finish once with `mean_map` or `prior_map`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked


def bounding_box(modal: Tensor) -> Tensor:
    """The filled bounding box of each mask, bool "b 1 h w" -> bool "b 1 h w"; empty stays empty."""
    across = _between(modal.any(-2, keepdim=True))
    down = _between(modal.any(-1, keepdim=True).mT).mT
    return across & down


def _between(hit: Tensor) -> Tensor:
    """From the first to the last True along the last axis."""
    return (hit.cumsum(-1) > 0) & (hit.flip(-1).cumsum(-1).flip(-1) > 0)


def oracle_mean_flow(flow: Tensor, valid: Tensor) -> Tensor:
    """The true mean flow of each image at every pixel, "b 2 h w" -> "b 2 h w"; 0 if none is valid.

    It looks at the truth: the best a constant can do in squared error.
    """
    totals = torch.stack([masked.total(axis, valid[:, 0]) for axis in flow.unbind(1)], dim=1)
    means = totals / masked.count(valid).clamp(min=1)[:, None]
    return means.to(flow.dtype)[:, :, None, None].expand_as(flow)


def accumulate_mean_map(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum "c h w" and count "1 h w" (float64) of `x "b c h w"` where `valid "b 1 h w"`."""
    return torch.where(valid, x.double(), 0.0).sum(0), valid.sum(0, dtype=torch.float64)


def mean_map(total: Tensor, count: Tensor) -> Tensor:
    """The mean of each pixel, float64 "c h w"; where nothing was seen, the mean of all pixels."""
    overall = total.sum((1, 2), keepdim=True) / count.sum().clamp(min=1)
    return torch.where(count > 0, total / count.clamp(min=1), overall)


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """How often each pixel carries each class, int64 `labels "b h w"` -> int64 "k h w"."""
    return torch.stack([(labels == k).sum(0) for k in range(classes)])


def prior_map(counts: Tensor) -> Tensor:
    """The most frequent class of each pixel, "k h w" -> int64 "h w"; where nothing was seen, the
    most frequent of all. Of equally frequent classes the first."""
    overall = counts.sum((1, 2)).argmax()
    return torch.where(counts.sum(0) > 0, counts.argmax(0), overall)
