"""Other sizes: samples to a working size, predictions back to the native one.

Each quantity is resized as its meaning demands: pictures are smoothed, what must not be mixed
(depth, labels, masks) is picked at the nearest pixel centre, and vectors are averaged where all of
them are valid, else picked: sparse truth is never interpolated across what is unknown. Flow is
measured in pixels of its own grid, so u scales with the width and v with the height.
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
    "flow_valid",
    "normals_valid",
    "occluded",
    "labels",
    "instances",
    "modal",
    "amodal",
    "amodal_valid",
)


def resize_sample(sample: Sample, size: Size) -> Sample:
    """`sample` at height, width = `size`; the sample itself when it has that size already.

    A flow vector or normal is valid where the pixel under its centre is. It is averaged over its
    area (shrinking) or bilinear (enlarging) if all pixels in that are valid, and else that of the
    pixel under its centre.
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
        flow = _average(sample.flow, sample.flow_valid, size)
        changes["flow"] = scale_flow(flow, (height, width), size)
    if sample.normals is not None:
        normals = _average(sample.normals, sample.normals_valid, size)
        changes["normals"] = F.normalize(normals, dim=0)
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


def _average(x: Tensor, valid: Tensor | None, size: Size) -> Tensor:
    """Vectors "c h w" smoothed where all that is mixed is valid: averaged over the area (shrinking)
    or bilinear (enlarging). Elsewhere what `_nearest` picks of them, 0 where that is invalid."""
    assert valid is not None, "flow and normals come with a mask"
    smaller = (min(x.shape[-2], size[0]), min(x.shape[-1], size[1]))
    mean, whole = _smoothed(x, valid, smaller, "area")
    if smaller != tuple(size):
        mean, whole = _smoothed(mean, whole, size, "bilinear")
    picked = torch.where(valid, x, 0.0)  # unknown values may be huge or not finite
    return torch.where(whole, mean, _nearest(picked, size))


def _smoothed(x: Tensor, valid: Tensor, size: Size, mode: str) -> tuple[Tensor, Tensor]:
    """Vectors "c h w" at another size, and where nothing invalid had any weight in them."""
    total = F.interpolate(torch.where(valid, x, 0.0)[None], size, mode=mode)[0]
    weight = F.interpolate(valid[None].to(x.dtype), size, mode=mode)[0]
    gap = F.interpolate((~valid)[None].to(x.dtype), size, mode=mode)[0]
    return total / weight.clamp_min(1e-12), gap == 0  # weights sum to 1 but for rounding
