"""Planes on other grids. Each is resized as its meaning demands: pictures are smoothed, what must
not be mixed (depth, labels, masks) is picked at the nearest pixel centre, and vectors are averaged
where all of them are valid, else picked: sparse truth is never interpolated across what is unknown.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height, width


def resize_field(
    x: Tensor, size: Size, mode: Literal["bilinear", "nearest-exact"] = "bilinear"
) -> Tensor:
    """A dense field "b c h w" at another size; bilinear smooths before it shrinks.

    The values are left as they are: follow with `scale_flow` for flow.
    """
    if mode == "nearest-exact":
        return nearest(x, size)
    return F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)


def scale_flow(flow: Tensor, old: Size, new: Size) -> Tensor:
    """Flow "... 2 h w" in pixels of the grid `old`, in pixels of the grid `new`."""
    scale = flow.new_tensor([new[1] / old[1], new[0] / old[0]])
    return flow * scale[:, None, None]


def unit_length(vectors: Tensor, old: Size, new: Size) -> Tensor:
    """Vectors "c h w" of length 1 again, after they were averaged."""
    return F.normalize(vectors, dim=0)


def smooth_picture(image: Tensor, size: Size) -> Tensor:
    """uint8 "3 h w", antialiased; rounded, since bilinear weights cannot leave [0, 255]."""
    return resize_field(image[None].float(), size)[0].round().to(torch.uint8)


def nearest(x: Tensor, size: Size) -> Tensor:
    """The pixel "... h w" under each new pixel's centre, in integer arithmetic, for any dtype."""
    rows, columns = (
        (2 * torch.arange(new, device=x.device) + 1) * old // (2 * new)
        for old, new in zip(x.shape[-2:], size)
    )
    return x[..., rows[:, None], columns]


def move_points(points: Tensor, old: Size, new: Size) -> Tensor:
    """Points "n c" (rows and columns in turn) to the pixels of another grid that hold their
    centres."""
    pairs = points.shape[-1] // 2
    old_sides, new_sides = (points.new_tensor([*size] * pairs) for size in (old, new))
    return (2 * points + 1) * new_sides // (2 * old_sides)


def average(x: Tensor, valid: Tensor | None, size: Size) -> Tensor:
    """Vectors "c h w" smoothed where all that is mixed is valid: averaged over the area (shrinking)
    or bilinear (enlarging). Elsewhere what `nearest` picks of them, 0 where that is invalid."""
    assert valid is not None, "what is averaged comes with a mask"
    smaller = (min(x.shape[-2], size[0]), min(x.shape[-1], size[1]))
    mean, whole = _smoothed(x, valid, smaller, "area")
    if smaller != tuple(size):
        mean, whole = _smoothed(mean, whole, size, "bilinear")
    picked = torch.where(valid, x, 0.0)  # unknown values may be huge or not finite
    return torch.where(whole, mean, nearest(picked, size))


def _smoothed(x: Tensor, valid: Tensor, size: Size, mode: str) -> tuple[Tensor, Tensor]:
    """Vectors "c h w" at another size, and where nothing invalid had any weight in them."""
    total = F.interpolate(torch.where(valid, x, 0.0)[None], size, mode=mode)[0]
    weight = F.interpolate(valid[None].to(x.dtype), size, mode=mode)[0]
    gap = F.interpolate((~valid)[None].to(x.dtype), size, mode=mode)[0]
    return total / weight.clamp_min(1e-12), gap == 0  # weights sum to 1 but for rounding
