"""Other sizes: samples to a working size, predictions back to the native one.

Each quantity is resized as its meaning demands: pictures are smoothed, what must not be mixed
(depth, labels, masks) is picked at the nearest pixel centre, and vectors are averaged over their
valid pixels only. Flow is measured in pixels of its own grid, so u scales with the width and v with
the height.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.types import Sample

Size = tuple[int, int]  # height, width
PICTURES = ("image", "second", "whole")
PICKED = (
    "depth",
    "depth_valid",
    "occluded",
    "labels",
    "instances",
    "modal",
    "amodal",
    "amodal_valid",
)


def resize_sample(sample: Sample, size: Size) -> Sample:
    """`sample` at height, width = `size`; the sample itself when it has that size already.

    A flow vector or normal is valid when any valid pixel lies in its area (shrinking), or when at
    least half of its bilinear weight is valid (enlarging).
    """
    height, width = sample.image.shape[-2:]
    if (height, width) == tuple(size):
        return sample
    changes: dict[str, Tensor] = {}
    for name in PICTURES:
        if (picture := getattr(sample, name)) is not None:
            changes[name] = _picture(picture, size)
    for name in PICKED:
        if (plane := getattr(sample, name)) is not None:
            changes[name] = _nearest(plane, size)
    if sample.flow is not None:
        flow, changes["flow_valid"] = _average(sample.flow, sample.flow_valid, size)
        changes["flow"] = scale_flow(flow, (height, width), size)
    if sample.normals is not None:
        mean, changes["normals_valid"] = _average(sample.normals, sample.normals_valid, size)
        changes["normals"] = F.normalize(mean, dim=0)
    if sample.order is not None:
        changes["order"] = _points(sample.order, (height, width), size)
    return replace(sample, **changes)  # type: ignore[arg-type]


def resize_field(
    x: Tensor, size: Size, mode: Literal["bilinear", "nearest-exact"] = "bilinear"
) -> Tensor:
    """A dense field "b c h w" at another size; bilinear smooths before it shrinks.

    The values are left as they are: follow with `scale_flow` for flow.
    """
    if mode == "nearest-exact":
        return _nearest(x, size)
    return F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)


def scale_flow(flow: Tensor, old: Size, new: Size) -> Tensor:
    """Flow "... 2 h w" in pixels of the grid `old`, in pixels of the grid `new`."""
    scale = flow.new_tensor([new[1] / old[1], new[0] / old[0]])
    return flow * scale[:, None, None]


def _picture(image: Tensor, size: Size) -> Tensor:
    """uint8 "3 h w", antialiased; rounded, since bilinear weights cannot leave [0, 255]."""
    return resize_field(image[None].float(), size)[0].round().to(torch.uint8)


def _nearest(x: Tensor, size: Size) -> Tensor:
    """The pixel "... h w" under each new pixel's centre, in integer arithmetic, for any dtype."""
    rows, columns = (
        (2 * torch.arange(new, device=x.device) + 1) * old // (2 * new)
        for old, new in zip(x.shape[-2:], size)
    )
    return x[..., rows[:, None], columns]


def _points(order: Tensor, old: Size, new: Size) -> Tensor:
    """Points "n 4" (row, column, row, column) to the pixels of another grid that hold their
    centres."""
    scale = order.new_tensor([*new, *new])
    return (2 * order + 1) * scale // (2 * order.new_tensor([*old, *old]))


def _average(x: Tensor, valid: Tensor | None, size: Size) -> tuple[Tensor, Tensor]:
    """Vectors "c h w" averaged over valid pixels, 0 where there are none, and the new mask."""
    assert valid is not None, "flow and normals come with a mask"
    smaller = (min(x.shape[-2], size[0]), min(x.shape[-1], size[1]))
    x, valid = _normalised(x, valid, smaller, "area", 0.0)
    if smaller != tuple(size):
        x, valid = _normalised(x, valid, size, "bilinear", 0.5)
    return x, valid


def _normalised(
    x: Tensor, valid: Tensor, size: Size, mode: str, share: float
) -> tuple[Tensor, Tensor]:
    """Normalised convolution (Knutsson & Westin 1993): smoothed values over smoothed validity.

    Valid where that validity, in [0, 1], is positive and at least `share`.
    """
    known = torch.where(valid, x, 0.0)  # unknown values may be huge or not finite
    total = F.interpolate(known[None], size, mode=mode)[0]
    weight = F.interpolate(valid[None].to(x.dtype), size, mode=mode)[0]
    valid = (weight > 0) & (weight >= share)
    return torch.where(valid, total / weight.clamp_min(1e-12), 0.0), valid
