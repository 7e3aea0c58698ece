"""Augmentation of samples that keeps their truth true. Whether to apply it is the caller's draw."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from stepsight.types import Sample


def flip(sample: Sample) -> Sample:
    """The world in a mirror, left and right exchanged: also u and the normals' x change sign."""
    mirrored: dict[str, Any] = {
        field.name: value.flip(-1)
        for field in fields(sample)
        if isinstance(value := getattr(sample, field.name), Tensor) and field.name != "order"
    }
    for name in {"flow", "normals"} & mirrored.keys():
        mirrored[name][0].neg_()  # `Tensor.flip` copies, so the original keeps its values
    if sample.order is not None:  # points: their columns count from the other side
        mirrored["order"] = sample.order.clone()
        mirrored["order"][:, 1::2] = sample.image.shape[-1] - 1 - sample.order[:, 1::2]
    return replace(sample, **mirrored)
