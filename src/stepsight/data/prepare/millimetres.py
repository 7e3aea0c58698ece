"""Depth as Marigold's layouts store it: 16-bit PNG, whole millimetres, 0 where there is none."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 65535  # millimetres; what is farther cannot be written


def to_millimetres(depth: Tensor, valid: Tensor) -> Tensor:
    """Metres "1 h w" to uint16 millimetres "1 h w", fractions cut off as in Marigold's files.

    Pixels that are not valid, and those farther than `LARGEST`, become 0: nothing wraps around.
    """
    whole = (depth * 1000).floor()
    fits = valid & (whole > 0) & (whole <= LARGEST)
    return torch.where(fits, whole, 0).to(torch.int32).to(torch.uint16)
