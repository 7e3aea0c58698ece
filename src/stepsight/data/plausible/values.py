"""Rules about the values of a quantity by themselves: range, unit, encoding, too little of it.

`source` is what the sample came from: it knows its classes and how far away things may be.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stepsight.data.plausible.rules import Finding, Rule
from stepsight.types import IGNORE, Sample

UNIT_TOLERANCE = 0.01  # by which the length of a normal may differ from 1
SOME = "some"  # the rule without which the others of a map have nothing to look at
DIAGONALS = 2.0  # of the image: what moves farther was read in another unit


def valid_of(values: Tensor, valid: Tensor | None) -> Tensor:
    """bool "1 h w": where the values "c h w" count."""
    return torch.ones_like(values[:1], dtype=torch.bool) if valid is None else valid


def _finite(name: str) -> Rule:
    def look(sample: Sample, source: Any) -> Finding:
        values = getattr(sample, name)
        valid = valid_of(values, getattr(sample, f"{name}_valid", None))
        return not bool(values[valid.expand_as(values)].isfinite().all())

    says = f"{name} has NaN or infinite values among the valid ones"
    return Rule("finite", name, says, "Mark them as unknown.", look, answers=True)


def _some(name: str) -> Rule:
    def look(sample: Sample, source: Any) -> Finding:
        return not bool(
            valid_of(getattr(sample, name), getattr(sample, f"{name}_valid", None)).any()
        )

    do = "Leave such samples out, or look at how unknown values are marked."
    return Rule(SOME, name, f"no valid {name}", do, look)


def _not_positive(sample: Sample, source: Any) -> Finding:
    assert sample.depth is not None
    return bool((sample.depth <= 0)[valid_of(sample.depth, sample.depth_valid)].any())


def _far(sample: Sample, source: Any) -> Finding:
    assert sample.depth is not None
    farthest = getattr(source, "farthest", math.inf)
    beyond = (sample.depth > farthest) & sample.depth.isfinite()
    if not beyond.any():
        return False
    high = float(sample.depth[beyond].max())
    return {"high": f"{high:.4g}", "share": f"{float(beyond.float().mean()):.2%}"}


def _long(sample: Sample, source: Any) -> Finding:
    assert sample.flow is not None
    valid = valid_of(sample.flow, sample.flow_valid)
    lengths = sample.flow.norm(dim=0, keepdim=True)[valid]
    across = math.hypot(*sample.image.shape[-2:])
    if not lengths.numel() or not (longest := float(lengths.max())) > DIAGONALS * across:
        return False
    return {"longest": f"{longest:.4g}", "across": f"{across:.0f}"}


def _not_unit(sample: Sample, source: Any) -> Finding:
    assert sample.normals is not None
    valid = valid_of(sample.normals, sample.normals_valid)
    lengths = sample.normals.norm(dim=0, keepdim=True)[valid]
    return bool(((lengths - 1).abs() > UNIT_TOLERANCE).any())


def _not_containing(sample: Sample, source: Any) -> Finding:
    if sample.modal is None or sample.amodal is None:
        return None
    return bool((sample.modal & ~sample.amodal).any())


def _outside(sample: Sample, source: Any) -> Finding:
    assert sample.order is not None
    limits = sample.order.new_tensor([*sample.image.shape[-2:], *sample.image.shape[-2:]])
    return bool(((sample.order < 0) | (sample.order >= limits)).any())


def _unknown_labels(sample: Sample, source: Any) -> Finding:
    assert sample.labels is not None
    if not (classes := len(source.classes)):
        return None
    known = (sample.labels < classes) & (sample.labels >= 0) | (sample.labels == IGNORE)
    wrong = sample.labels[~known].unique().tolist()
    return {"wrong": wrong[:5], "classes": classes} if wrong else False


def _unknown_class(sample: Sample, source: Any) -> Finding:
    known = len(source.categories)
    wrong = sample.class_id is not None and not 0 <= sample.class_id < known
    return {"class_id": sample.class_id, "known": known} if wrong else False


def of_map(name: str) -> tuple[Rule, Rule]:
    """What holds of any map."""
    return _some(name), _finite(name)


ALONE = (
    Rule(
        "positive",
        "depth",
        "depth is not positive everywhere it is valid",
        "Mark such pixels as unknown.",
        _not_positive,
        answers=True,
    ),
    Rule(
        "far",
        "depth",
        "depth of {high} m, which nobody measured, over {share} of the picture",
        "If that is sky or a code for unknown it counts as no depth; else name its unit.",
        _far,
        answers=True,
    ),
    Rule(
        "long",
        "flow",
        "flow of {longest} px, in an image {across} px across",
        "Is it in another unit?",
        _long,
        answers=True,
    ),
    Rule(
        "unit length",
        "normals",
        "normals are not of unit length",
        "Are they stored as colours, 0 to 1 or 0 to 255?",
        _not_unit,
    ),
    Rule(
        "contained",
        "amodal",
        "the whole mask does not contain the visible one",
        "Are the two mixed up, or inside and outside?",
        _not_containing,
    ),
    Rule("inside", "order", "a point lies outside the image", "Row comes first.", _outside),
    Rule(
        "known labels",
        "labels",
        "labels {wrong} are none of the {classes} classes",
        "Do ids start at 1, or are they those of another list?",
        _unknown_labels,
        answers=True,
    ),
    Rule(
        "known class",
        "class_id",
        "class {class_id} is none of the {known} categories",
        "Do ids start at 1?",
        _unknown_class,
    ),
)
