"""The range of a quantity, and what can be wrong with its values, in words.

`source` is what the sample came from: it knows its classes and how far away things may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepsight.types import IGNORE, Sample

UNIT_TOLERANCE = 0.01  # by which the length of a normal may differ from 1
DIAGONALS = 2.0  # of the image: what moves farther was read in another unit


@dataclass(frozen=True)
class Range:
    """Smallest and largest valid value, and the share of pixels that are valid."""

    low: float
    high: float
    valid: float


def range_of(values: Tensor, valid: Tensor | None) -> Range:
    """Of "c h w" or "h w" where `valid`, "1 h w" or "h w"; None: everywhere."""
    valid = torch.ones_like(values[:1], dtype=torch.bool) if valid is None else valid
    chosen = values[valid.expand_as(values)]
    if not chosen.numel():
        return Range(float("nan"), float("nan"), 0.0)
    return Range(float(chosen.min()), float(chosen.max()), float(valid.float().mean()))


def flow_length(flow: Tensor, sample: Sample) -> dict[str, Range]:
    return {"flow": range_of(flow.norm(dim=0, keepdim=True), sample.flow_valid)}


def hidden_share(amodal: Tensor, sample: Sample) -> dict[str, Range]:
    """How much of the object is hidden."""
    if sample.modal is None:
        return {}
    hidden = float((amodal & ~sample.modal).sum() / amodal.sum().clamp_min(1))
    return {"hidden": Range(hidden, hidden, float(amodal.float().mean()))}


def map_problems(name: str, values: Tensor, valid: Tensor | None) -> Iterator[str]:
    """Of any map."""
    valid = torch.ones_like(values[:1], dtype=torch.bool) if valid is None else valid
    if not valid.any():
        yield f"no valid {name}"
    elif not values[valid.expand_as(values)].isfinite().all():
        yield f"{name} has NaN or infinite values among the valid ones"


def depth_problems(depth: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    span = range_of(depth, sample.depth_valid)
    if span.low <= 0:
        yield "depth is not positive everywhere it is valid"
    if span.high > getattr(source, "farthest", math.inf):
        yield f"depth of {span.high:.4g} m, which nobody measured: in another unit?"


def flow_problems(flow: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    longest = flow_length(flow, sample)["flow"].high
    if longest > DIAGONALS * (diagonal := math.hypot(*sample.image.shape[-2:])):
        yield f"flow of {longest:.4g} px, in an image {diagonal:.0f} px across: unit?"


def normals_problems(normals: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    lengths = normals.norm(dim=0, keepdim=True)
    lengths = lengths if sample.normals_valid is None else lengths[sample.normals_valid]
    if ((lengths - 1).abs() > UNIT_TOLERANCE).any():
        yield "normals are not of unit length"


def amodal_problems(amodal: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    if sample.modal is not None and (sample.modal & ~amodal).any():
        yield "the whole mask does not contain the visible one"


def order_problems(order: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    limits = order.new_tensor([*sample.image.shape[-2:], *sample.image.shape[-2:]])
    if ((order < 0) | (order >= limits)).any():
        yield "a point lies outside the image"


def label_problems(labels: Tensor, sample: Sample, source: Any) -> Iterator[str]:
    known = (labels < len(source.classes)) & (labels >= 0) | (labels == IGNORE)
    if source.classes and (wrong := labels[~known].unique().tolist()):
        yield f"labels {wrong[:5]} are none of the {len(source.classes)} classes"


def class_problems(class_id: int, sample: Sample, source: Any) -> Iterator[str]:
    if not 0 <= class_id < len(source.categories):
        yield f"class {class_id} is none of the {len(source.categories)} categories"
