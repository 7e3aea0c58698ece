"""Metrics of masks (amodal completion) and of class maps (semantic segmentation)."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.protocols.row import Absent
from stepsight.types import IGNORE


def amodal_rows(
    pred: Tensor, modal: Tensor, amodal: Tensor, valid: Tensor, protocol: Protocol
) -> Rows:
    """Scores of a whole-object mask, all "b 1 h w": `pred` bool or probability (object above 0.5).

        iou         |pred and amodal| / |pred or amodal|, counted by `union`
        iou_hidden  the same over pixels outside `modal`, counted by `union_hidden`;
                    NaN where the object has no hidden part, unless the protocol keeps objects
                    in full view: there every predicted pixel of it is wrong
        hidden      hidden share of the object's area, counted by `n`, its area in pixels
    An object hidden by less than the protocol's `min_hidden` is not measured: NaN, counts 0.
    """
    pred = pred if pred.dtype == torch.bool else pred > 0.5
    assert pred.shape == modal.shape == amodal.shape == valid.shape, pred.shape
    valid = scored_pixels(modal, amodal, valid, protocol)
    hidden = masked.mean(~modal, amodal & valid)
    outside = valid & ~modal
    if not protocol.full_view:
        outside = outside & masked.spread(hidden > 0, valid)
    union, union_hidden = (masked.count((pred | amodal) & where) for where in (valid, outside))
    area = masked.count(amodal & valid)
    return {
        "n": area,
        "union": union,
        "union_hidden": union_hidden,
        "iou": masked.count(pred & amodal & valid) / union,
        "iou_hidden": masked.count(pred & amodal & outside) / union_hidden,
        "hidden": torch.where(area > 0, hidden, torch.nan),
    }


def scored_pixels(modal: Tensor, amodal: Tensor, valid: Tensor, protocol: Protocol) -> Tensor:
    """The pixels that count, bool "b 1 h w": the valid ones of objects hidden by `min_hidden`."""
    hidden = masked.mean(~modal, amodal & valid)
    return valid & masked.spread(hidden >= (protocol.min_hidden or 0.0), valid)


def semantic_rows(pred: Tensor, labels: Tensor, classes: int) -> Rows:
    """`confusion "b k k"` of class maps "b h w", and `n`, the labelled pixels of each image."""
    return {"n": masked.count(labels != IGNORE), "confusion": confusion(pred, labels, classes)}


def confusion(pred: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixels of each image by true class (row) and predicted class (column).

    `pred`, `labels` integer "b h w" -> float64 "b k k". Pixels labelled IGNORE are left out, which
    also keeps them out of the false positives.
    """
    pred, labels = pred.flatten(1).long(), labels.flatten(1).long()
    known = labels != IGNORE
    for ids in (pred[known], labels[known]):
        assert ((ids >= 0) & (ids < classes)).all(), f"class ids outside 0 .. {classes - 1}"
    image = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    cell = (image * classes + labels) * classes + pred
    counts = torch.bincount(cell[known], minlength=len(labels) * classes**2)
    return counts.double().reshape(len(labels), classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """TP / (TP + FP + FN) of each class, "... k k" -> "... k"; NaN where a class never occurs."""
    true_positive = confusion.diagonal(dim1=-2, dim2=-1)
    return true_positive / (confusion.sum(-1) + confusion.sum(-2) - true_positive)


def miou(confusion: Tensor, absent: Absent = "skipped") -> Tensor:
    """Mean IoU, "... k k" -> "...", over the classes in truth or prediction (Cityscapes' rule), or
    over all, of which those in neither count 0 (that of ADE20K's challenge)."""
    iou = class_iou(confusion)
    return iou.nanmean(-1) if absent == "skipped" else iou.nan_to_num(0.0).mean(-1)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Share of labelled pixels with the right class, "... k k" -> "..."."""
    return confusion.diagonal(dim1=-2, dim2=-1).sum(-1) / confusion.sum((-2, -1))
