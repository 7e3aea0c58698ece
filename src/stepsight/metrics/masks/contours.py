"""Where maps change, and whether two maps of different quantities change in the same places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def edge_strength(x: Tensor) -> Tensor:
    """Sobel magnitude "b 1 h w" of maps "b c h w", over all channels: change per pixel."""
    across = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    kernels = torch.stack([across, across.T])[:, None]
    planes = rearrange(F.pad(x, (1, 1, 1, 1), mode="replicate"), "b c h w -> (b c) 1 h w")
    slopes = F.conv2d(planes, kernels)
    return rearrange(slopes, "(b c) k h w -> b (c k) h w", b=len(x)).norm(dim=1, keepdim=True)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation "b" of two maps "b ..." over their pixels; 0 where one is constant."""
    a, b = (x.double().flatten(1) for x in (a, b))
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=1, eps=1e-12)
