"""Does a flow explain the second frame, and does the flow back undo it? Scores without truth.

Frames and flows are "b c h w" on one grid, flows in its pixels. Where a vector leaves the frame the
nearest pixel of its edge stands in, so that a flow gains nothing by pointing outwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warped(second: Tensor, flow: Tensor) -> Tensor:
    """`second "b c h w"` fetched, bilinearly, from where `flow "b 2 h w"` points: at (x, y) its
    value at (x + u, y + v)."""
    height, width = flow.shape[-2:]
    rows, columns = (torch.arange(n, device=flow.device, dtype=flow.dtype) for n in (height, width))
    x, y = columns + flow[:, 0], rows[:, None] + flow[:, 1]
    # Pixel centres in the coordinates of `grid_sample`, where the frame spans [-1, 1].
    where = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(second, where, padding_mode="border", align_corners=False)


def inside(flow: Tensor) -> Tensor:
    """Bool "b 1 h w": where the vectors of `flow "b 2 h w"` end within the frame."""
    height, width = flow.shape[-2:]
    x = torch.arange(width).to(flow) + flow[:, :1]
    y = torch.arange(height).to(flow)[:, None] + flow[:, 1:]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def photometric_error(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Mean absolute difference "b" of `first` and the warped `second`, in their own unit: the data
    term of flow by brightness constancy (Horn & Schunck 1981), with the norm of Brox et al. 2004.
    """
    return (warped(second, flow) - first).abs().flatten(1).mean(dim=1)


def inconsistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Mean length "b", pixels, of `forward(x) + backward(x + forward(x))`: 0 where the flow of the
    second frame to the first leads back (Sundaram et al. 2010)."""
    residual = forward + warped(backward, forward)
    return residual.norm(dim=1).flatten(1).mean(dim=1)
