"""Augmentation of samples that keeps their truth true.

`flip` is the caller's draw. Crops and colours are drawn here: `augment` is a pure function of the
seed and the number of the image in the run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.data.config import FileSettings
from stepsight.data.fields import Field, present, with_values
from stepsight.data.resize import resize_sample
from stepsight.seeding import numpy_generator
from stepsight.types import Sample

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment(
    sample: Sample,
    settings: FileSettings,
    size: tuple[int, int],
    seed: int,
    number: int,
    mirrored: bool,
) -> Sample:
    """`sample` as image `number` of a run shows it: cropped, at `size`, mirrored, recoloured."""
    if settings.crop_scale < 1:
        rng = numpy_generator(seed, "crop", number)
        sample = random_crop(sample, settings.crop_scale, rng)
    sample = resize_sample(sample, size)
    if mirrored:
        sample = flip(sample)
    if settings.jitter:
        sample = jitter(sample, settings.jitter, numpy_generator(seed, "jitter", number))
    return sample


def flip(sample: Sample) -> Sample:
    """The world in a mirror, left and right exchanged: also u and the normals' x change sign."""
    width = sample.image.shape[-1]
    mirrored = {row.name: _mirrored(row, value, width) for row, value in present(sample)}
    return with_values(sample, mirrored)


def _mirrored(row: Field, value: Any, width: int) -> Any:
    if row.kind == "number":
        return value
    if row.kind == "points":  # their columns count from the other side
        value = value.clone()
        value[:, 1::2] = width - 1 - value[:, 1::2]
        return value
    value = value.flip(-1)
    for channel in row.negated:
        value[channel].neg_()  # `Tensor.flip` copies, so the original keeps its values
    return value


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window of both frames.

    Depth stays as it is: the distance along the optical axis does not depend on where the frame
    ends. So does flow, in pixels; what it leads out of the window becomes occluded, where
    occlusions are known. Pairs of points are dropped unless both are inside.
    """
    rows, columns = slice(top, top + height), slice(left, left + width)
    window: dict[str, Any] = {}
    for row, value in present(sample):
        if row.dense:
            window[row.name] = value[..., rows, columns]
        elif row.kind == "points":
            pairs = row.channels // 2
            inside = value - value.new_tensor([top, left] * pairs)
            ends = value.new_tensor([height, width] * pairs)
            window[row.name] = inside[((inside >= 0) & (inside < ends)).all(dim=1)]
    if sample.occluded is not None and sample.flow is not None:
        window["occluded"] = window["occluded"] | _leaves(window["flow"]) & window["flow_valid"]
    return with_values(sample, window)


def random_crop(sample: Sample, scale: float, rng: np.random.Generator) -> Sample:
    """A window with the same share of both sides, uniform in [scale, 1], anywhere in the frame.

    The sample as it is if the window held nothing of a mask that the sample has, or no label.
    """
    share = rng.uniform(scale, 1)
    height, width = sample.image.shape[-2:]
    sides = max(1, round(share * height)), max(1, round(share * width))
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip((height, width), sides))
    window = crop(sample, top, left, *sides)
    lost = any(b.any() and not a.any() for b, a in zip(_kept(sample), _kept(window)))
    return sample if lost else window


def jitter(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """Random gamma, saturation, contrast and brightness, each a factor of e^u with u uniform in
    [-strength, strength].

    All pictures pass the same map of colours, so that what looked alike in both frames still does.
    The white around a whole object stays white.
    """
    factors = [math.exp(strength * u) for u in rng.uniform(-1, 1, 4)]
    changed: dict[str, Tensor] = {}
    for row, value in present(sample):
        if row.kind == "picture":
            changed[row.name] = _recolour(value, *factors)
            if row.on_white:
                changed[row.name].masked_fill_((value == 255).all(dim=0), 255)
    return with_values(sample, changed)


def _recolour(
    image: Tensor, gamma: float, saturation: float, contrast: float, brightness: float
) -> Tensor:
    """uint8 "3 h w": saturation about each pixel's luma, contrast about mid-grey."""
    x = (image.to(torch.float32) / 255) ** gamma
    grey = torch.einsum("chw,c->hw", x, x.new_tensor(LUMA))
    x = grey + saturation * (x - grey)
    x = brightness * (0.5 + contrast * (x - 0.5))
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def _kept(sample: Sample) -> list[Tensor]:
    """What a sample has of the masks and labelled pixels of which a crop keeps something."""
    return [row.counted(value) for row, value in present(sample) if row.kept]


def _leaves(flow: Tensor) -> Tensor:
    """bool "1 h w": where flow "2 h w" leads out of the frame."""
    height, width = flow.shape[-2:]
    x = torch.arange(width) + flow[0]
    y = torch.arange(height)[:, None] + flow[1]
    return ((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1))[None]
