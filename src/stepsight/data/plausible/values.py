"""Rules about the values of a quantity by themselves: range, unit, encoding, too little of it.

`source` is what the sample came from: it knows its classes and how far away things may be.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stepsight.data.plausible.rules import Finding, PlausibleRule
from stepsight.types import IGNORE, Sample

UNIT_TOLERANCE = 0.01  # by which the length of a normal may differ from 1
BORDER = 0.75  # share of the border of a picture that no object covers
AWAY = 0.8  # share of the normals that point away from the camera, if they are of another frame
SOME = "some"  # the rule without which the others of a map have nothing to look at
DIAGONALS = 2.0  # of the image: what moves farther was read in another unit


def valid_of(values: Tensor, valid: Tensor | None) -> Tensor:
    """bool "1 h w": where the values "c h w" count."""
    return torch.ones_like(values[:1], dtype=torch.bool) if valid is None else valid


def _finite(name: str) -> PlausibleRule:
    def look(sample: Sample, source: Any) -> Finding:
        values = getattr(sample, name)
        valid = valid_of(values, getattr(sample, f"{name}_valid", None))
        return not bool(values[valid.expand_as(values)].isfinite().all())

    says = f"{name} has NaN or infinite values among the valid ones"
    return PlausibleRule("finite", name, says, "Mark them as unknown.", look, answers=True)


def _some(name: str) -> PlausibleRule:
    def look(sample: Sample, source: Any) -> Finding:
        return not bool(
            valid_of(getattr(sample, name), getattr(sample, f"{name}_valid", None)).any()
        )

    do = "Leave such samples out, or look at how unknown values are marked."
    return PlausibleRule(SOME, name, f"no valid {name}", do, look)


def _constant(name: str) -> PlausibleRule:
    def look(sample: Sample, source: Any) -> Finding:
        values = getattr(sample, name)
        valid = valid_of(values, getattr(sample, f"{name}_valid", None)).expand_as(values)
        planes = [plane[known] for plane, known in zip(values, valid)]
        if min(map(len, planes)) < 2:
            return None
        return all(bool((plane == plane[0]).all()) for plane in planes)

    do = "Was it written at all, or with too few bits?"
    says = f"{name} is the same everywhere"
    return PlausibleRule(
        "constant", name, says, do, look, grave=False, share=0.5, least=2, answers=True
    )


def _one_class(sample: Sample, source: Any) -> Finding:
    assert sample.labels is not None
    labelled = sample.labels[sample.labels != IGNORE]
    return bool((labelled == labelled[0]).all()) if len(labelled) > 1 else None


def _no_first(sample: Sample, source: Any) -> Finding:
    assert sample.labels is not None
    labelled = sample.labels[sample.labels != IGNORE]
    return int(labelled.min()) > 0 if len(labelled) else None


def _filled(sample: Sample, source: Any) -> Finding:
    assert sample.amodal is not None
    if sample.amodal_valid is not None and not sample.amodal_valid.any():
        return None
    share = float(sample.amodal.float().mean())
    return {"what": "nothing" if share == 0 else "everything"} if share in (0.0, 1.0) else False


def _outer(sample: Sample, source: Any) -> Finding:
    """Objects seldom cover the border of their picture; what is around them does."""
    assert sample.amodal is not None
    mask = sample.amodal[0]
    border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).float().mean()
    if mask.all() or not mask.any():
        return None
    return bool(border > BORDER and mask.float().mean() > 0.5)


def _away(sample: Sample, source: Any) -> Finding:
    assert sample.normals is not None
    z = sample.normals[2:3][valid_of(sample.normals, sample.normals_valid)]
    return bool((z > 0).float().mean() > AWAY) if len(z) else None


def _blank(sample: Sample, source: Any) -> Finding:
    return bool((sample.image == sample.image[:, :1, :1]).all())


def _not_positive(sample: Sample, source: Any) -> Finding:
    assert sample.depth is not None
    return bool((sample.depth <= 0)[valid_of(sample.depth, sample.depth_valid)].any())


def _far(sample: Sample, source: Any) -> Finding:
    assert sample.depth is not None
    return _beyond(sample.depth, valid_of(sample.depth, sample.depth_valid), source)


def _sky(sample: Sample, source: Any) -> Finding:
    assert sample.depth is not None
    return _beyond(sample.depth, ~valid_of(sample.depth, sample.depth_valid), source)


def _beyond(depth: Tensor, where: Tensor, source: Any) -> Finding:
    farthest = getattr(source, "farthest", math.inf)
    beyond = where & (depth > farthest) & depth.isfinite()
    if not beyond.any():
        return False
    share = f"{float(beyond.float().mean()):.2%}"
    return {"high": f"{float(depth[beyond].max()):.4g}", "share": share, "far": f"{farthest:g}"}


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


def of_map(name: str) -> tuple[PlausibleRule, ...]:
    """What holds of any map."""
    return _some(name), _finite(name), _constant(name)


ALONE = (
    PlausibleRule(
        "positive",
        "depth",
        "depth is not positive everywhere it is valid",
        "Mark such pixels as unknown.",
        _not_positive,
        answers=True,
    ),
    PlausibleRule(
        "far",
        "depth",
        "depth of {high} m, which nobody measured, over {share} of the picture",
        "Is it in another unit?",
        _far,
        answers=True,
    ),
    PlausibleRule(
        "sky",
        "depth",
        "depth of {high} m, beyond {far} m, over {share} of the picture, is taken for sky",
        "It counts as no depth.",
        _sky,
        grave=False,
    ),
    PlausibleRule(
        "long",
        "flow",
        "flow of {longest} px, in an image {across} px across",
        "Is it in another unit?",
        _long,
        answers=True,
    ),
    PlausibleRule(
        "unit length",
        "normals",
        "normals are not of unit length",
        "Are they stored as colours, 0 to 1 or 0 to 255?",
        _not_unit,
    ),
    PlausibleRule(
        "contained",
        "amodal",
        "the whole mask does not contain the visible one",
        "Are the two mixed up, or inside and outside?",
        _not_containing,
    ),
    PlausibleRule(
        "inside", "order", "a point lies outside the image", "Row comes first.", _outside
    ),
    PlausibleRule(
        "known labels",
        "labels",
        "labels {wrong} are none of the {classes} classes",
        "Do ids start at 1, or are they those of another list?",
        _unknown_labels,
        answers=True,
    ),
    PlausibleRule(
        "known class",
        "class_id",
        "class {class_id} is none of the {known} categories",
        "Do ids start at 1?",
        _unknown_class,
    ),
    PlausibleRule(
        "one class",
        "labels",
        "all labelled pixels are of one class",
        "Is this a label map, or a mask?",
        _one_class,
        grave=False,
        share=0.5,
        least=2,
    ),
    PlausibleRule(
        "no first class",
        "labels",
        "class 0 never occurs",
        "If ids start at 1, say class_codes 1..",
        _no_first,
        grave=False,
        share=1,
        least=8,
    ),
    PlausibleRule(
        "filled",
        "amodal",
        "the mask covers {what}",
        "Say what is inside: mask_inside bright, dark, nonzero, alpha, or a stored value.",
        _filled,
        share=0.5,
        answers=True,
    ),
    PlausibleRule(
        "inside out",
        "amodal",
        "the mask covers the border and most of the picture",
        "Are inside and outside swapped? Say mask_inside.",
        _outer,
        share=0.6,
        least=2,
        answers=True,
    ),
    PlausibleRule(
        "pointing away",
        "normals",
        "normals point away from the camera",
        "Are they of a frame whose z comes out of the picture? Turn its sign, and that of y.",
        _away,
        share=0.5,
        least=2,
        answers=True,
    ),
    PlausibleRule(
        "blank",
        "image",
        "the picture is of one colour",
        "Was it read as it should be?",
        _blank,
        grave=False,
        share=0.5,
        answers=True,
    ),
)
