"""Which of two points is nearer? Ordinal depth, as in DA-2K (Yang et al. 2024, section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows


def ordering_rows(pred: Tensor, order: Tensor, *, given: Space = "depth") -> Rows:
    """`ordering`: share of an image's `n` pairs whose nearer point is predicted nearer.

    `pred "b 1 h w"` is depth, its logarithm or disparity (larger is nearer), all up to scale and
    shift; `order "b n 4"` has rows (row, column of a point, row, column of one farther away), -1
    where an image has fewer pairs. Equal values are wrong.
    """
    height, width = pred.shape[-2:]
    real = (order >= 0).all(dim=-1)
    assert (order[..., 0::2] < height).all() and (order[..., 1::2] < width).all(), "point outside"
    depth = (-pred if given == "disparity" else pred).flatten(1)
    places = order.clamp(min=0)
    near, far = (depth.gather(1, places[..., i] * width + places[..., i + 1]) for i in (0, 2))
    return {"n": masked.count(real), "ordering": masked.mean(torch.lt(near, far), real)}
