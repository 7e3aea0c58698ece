"""A sample as pictures: its image, and each truth it has in the colours of all pictures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from stepsight.colours import (
    colour_depth,
    colour_flow,
    colour_labels,
    colour_mask,
    colour_normals,
)
from stepsight.data.resize import resize_sample
from stepsight.types import IGNORE, Sample

CLOSER, FARTHER = (213, 94, 0), (0, 114, 178)  # Okabe-Ito vermillion and blue
DOT = 4  # radius in pixels of the drawn picture
STRIDE = 61  # between the colours of neighbouring instance numbers; 61 and 255 share no factor


def draw(sample: Sample, width: int | None = None) -> dict[str, Tensor]:
    """Pictures uint8 "3 h w" by name, at most `width` wide: of the image and whatever truth it has.

    Pixels whose truth is unknown are light grey.
    """
    return dict(_pictures(_fitted(sample, width)))


def _fitted(sample: Sample, width: int | None) -> Sample:
    height, wide = sample.image.shape[-2:]
    if width is None or wide <= width:
        return sample
    return resize_sample(sample, (max(1, round(height * width / wide)), width))


def _pictures(sample: Sample) -> Iterator[tuple[str, Tensor]]:
    yield "image", sample.image
    if sample.second is not None:
        yield "second", sample.second
    if sample.depth is not None:
        yield "depth", colour_depth(sample.depth[None], _batched(sample.depth_valid))[0]
    if sample.flow is not None:
        yield "flow", colour_flow(sample.flow[None], valid=_batched(sample.flow_valid))[0]
    if sample.occluded is not None:
        yield "occluded", _mask(~sample.occluded, torch.ones_like(sample.occluded))
    if sample.labels is not None:
        yield "labels", colour_labels(sample.labels[None])[0]
    if sample.instances is not None:
        yield "instances", _instances(sample.instances, sample.labels)
    if sample.modal is not None and sample.amodal is not None:
        yield "amodal", _mask(sample.modal, sample.amodal)
    if sample.whole is not None:
        yield "whole", sample.whole
    if sample.normals is not None:
        yield "normals", colour_normals(sample.normals[None], _batched(sample.normals_valid))[0]
    if sample.order is not None:
        yield "order", _points(sample.image, sample.order)


def _batched(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[None]


def _mask(modal: Tensor, amodal: Tensor) -> Tensor:
    return colour_mask(modal[None], amodal[None])[0]


def _instances(instances: Tensor, labels: Tensor | None) -> Tensor:
    """Each object "h w" in a colour of its own; stuff and crowds are light grey."""
    classes = 0 if labels is None else labels
    numbers = (STRIDE * instances + classes) % IGNORE
    return colour_labels(torch.where(instances > 0, numbers, IGNORE)[None])[0]


def _points(image: Tensor, order: Tensor) -> Tensor:
    """The image with pairs of points, joined: vermillion is closer, blue is farther away."""
    page: Image.Image = to_pil_image(image)
    pen = ImageDraw.Draw(page)
    for near_row, near_column, far_row, far_column in order.tolist():
        near, far = (near_column, near_row), (far_column, far_row)
        pen.line((near, far), fill="white", width=1)
        pen.circle(near, DOT, fill=CLOSER, outline="white")
        pen.circle(far, DOT, fill=FARTHER, outline="white")
    return pil_to_tensor(page)
