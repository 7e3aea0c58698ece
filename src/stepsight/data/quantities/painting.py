"""How each quantity looks, uint8 "3 h w", and what its colours mean; pixels whose truth is unknown
are light grey.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from stepsight.colours import (
    colour_depth,
    colour_flow,
    colour_image,
    colour_labels,
    colour_mask,
    colour_normals,
    colour_spread,
    depth_legend,
    depth_limits,
    flow_legend,
    labels_legend,
    mask_legend,
    normals_legend,
    spread_legend,
    spread_limit,
)
from stepsight.legends import Legend
from stepsight.types import IGNORE, Sample

CLOSER, FARTHER = (213, 94, 0), (0, 114, 178)  # Okabe-Ito vermillion and blue
DOT = 4  # radius in pixels of the drawn picture
STRIDE = 61  # between the colours of neighbouring instance numbers; 61 and 255 share no factor


def paint_depth(depth: Tensor, sample: Sample) -> Tensor:
    return colour_depth(depth[None], _batched(sample.depth_valid))[0]


def key_depth(depth: Tensor, sample: Sample) -> Legend:
    lo, hi = depth_limits(depth[None], _batched(sample.depth_valid))
    return depth_legend(float(lo), float(hi))


def paint_flow(flow: Tensor, sample: Sample) -> Tensor:
    return colour_flow(flow[None], valid=_batched(sample.flow_valid))[0]


def key_flow(flow: Tensor, sample: Sample) -> Legend:
    known = flow if sample.flow_valid is None else torch.where(sample.flow_valid, flow, 0.0)
    return flow_legend(float(known.nan_to_num().norm(dim=0).max()))


def paint_normals(normals: Tensor, sample: Sample) -> Tensor:
    return colour_normals(normals[None], _batched(sample.normals_valid))[0]


def key_normals(normals: Tensor, sample: Sample) -> Legend:
    return normals_legend()


def paint_occluded(occluded: Tensor, sample: Sample) -> Tensor:
    return paint_mask(~occluded, torch.ones_like(occluded))


def paint_amodal(amodal: Tensor, sample: Sample) -> Tensor:
    """The visible part and what is hidden of the object."""
    return paint_mask(amodal if sample.modal is None else sample.modal, amodal)


def key_amodal(amodal: Tensor, sample: Sample) -> Legend:
    return mask_legend()


def paint_labels(labels: Tensor, sample: Sample) -> Tensor:
    return colour_labels(labels[None])[0]


def key_labels(labels: Tensor, sample: Sample) -> Legend:
    return labels_legend(labels)


def paint_instances(instances: Tensor, sample: Sample) -> Tensor:
    """Each object in another colour; stuff and crowds are light grey."""
    classes = 0 if sample.labels is None else sample.labels
    numbers = (STRIDE * instances + classes) % IGNORE
    return colour_labels(torch.where(instances > 0, numbers, IGNORE)[None])[0]


def paint_pairs(order: Tensor, sample: Sample) -> Tensor:
    """The image with pairs of points, joined: vermillion is closer, blue is farther away."""
    page = Image.fromarray(sample.image.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(page)
    for near_row, near_column, far_row, far_column in order.tolist():
        near, far = (near_column, near_row), (far_column, far_row)
        pen.line((near, far), fill="white", width=1)
        pen.circle(near, DOT, fill=CLOSER, outline="white")
        pen.circle(far, DOT, fill=FARTHER, outline="white")
    return torch.from_numpy(np.array(page)).permute(2, 0, 1)


def paint_mask(inside: Tensor, around: Tensor | None = None) -> Tensor:
    """Masks "1 h w" in one colour, and what is only in the wider mask in another."""
    return colour_mask(inside[None], (inside if around is None else around)[None])[0]


def paint_map(values: Tensor, valid: Tensor | None) -> Tensor:
    """Any map "c h w": one channel from dark (its lowest value) to bright, two as motion, else the
    first three as red, green and blue in [-1, 1]."""
    match len(values):
        case 1:
            low, high = _ends(values, valid)
            return colour_spread((values - low)[None], high - low, _batched(valid))[0]
        case 2:
            return colour_flow(values[None], valid=_batched(valid))[0]
        case _:
            return colour_image(values[:3])


def key_map(values: Tensor, valid: Tensor | None, unit: str) -> Legend | None:
    """Of `paint_map`; None where its colours are those of a picture."""
    match len(values):
        case 1:
            low, high = _ends(values, valid)
            return replace(spread_legend(values[None], high, unit), low=low)
        case 2:
            return replace(flow_legend(float(values.nan_to_num().norm(dim=0).max())), unit=unit)
    return None


def _ends(values: Tensor, valid: Tensor | None) -> tuple[float, float]:
    """What is darkest and brightest of a map "1 h w": its lowest value and the 98th percentile."""
    known = values if valid is None or not valid.any() else values[valid]
    return float(known.min()), float(spread_limit(values[None], _batched(valid)))


def _batched(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[None]
