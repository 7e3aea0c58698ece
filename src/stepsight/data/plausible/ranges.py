"""The range of a quantity: its smallest and largest valid value, and how much of it is valid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stepsight.types import Sample


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
