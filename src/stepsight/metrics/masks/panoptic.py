"""Panoptic quality (Kirillov et al. 2019), with COCO's rules for void and crowds.

Counts are kept per class and image, and only their sums over the set become a score.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows
from stepsight.types import IGNORE

MATCH = 0.5  # IoU above which two segments are the same; no segment then has two partners
CROWD = -1
QUALITIES = tuple(f"{s}{g}" for g in ("", "_things", "_stuff") for s in ("pq", "sq", "rq"))


class Segments(NamedTuple):
    """The segments of one map, and which one each pixel is in."""

    classes: Tensor  # int64 "s"
    numbers: Tensor  # int64 "s"
    where: Tensor  # int64 "p", 0 .. s - 1


def panoptic_rows(pred: Tensor, labels: Tensor, instances: Tensor, classes: int) -> Rows:
    """Counts of `pred "b 2 h w"` = (class, instance number) against `labels`, `instances` "b h w".

        n         labelled pixels
        segments  "b k 4" by class: sum of the matches' IoU, TP, FP, FN
        numbered  "b k 2": 1 where the truth, the prediction has a numbered instance of the class
    A segment is all pixels of one class and instance number (0 for stuff). Truth of class IGNORE is
    void, of instance -1 a crowd; pixels predicted as IGNORE belong to no segment.
    """
    assert pred.shape[1] == 2 and pred[:, 0].shape == labels.shape == instances.shape, pred.shape
    counts = [_image(*maps, classes) for maps in zip(pred, labels, instances)]
    segments, numbered = map(torch.stack, zip(*counts))
    return {"n": masked.count(labels != IGNORE), "segments": segments, "numbered": numbered}


def quality(segments: Tensor, numbered: Tensor) -> Rows:
    """pq, sq, rq, of all classes that occur, and `_things`, `_stuff` of those with and without
    numbered instances in the truth (in the prediction, where the truth lacks the class), from
    "b k 4" and "b k 2" of a set. NaN where there is no such class.

    SQ = sum IoU / TP, 0 without a match; RQ = TP / (TP + FP/2 + FN/2); PQ = SQ RQ, class by class.
    """
    iou, tp, fp, fn = segments.sum(0).unbind(-1)
    occurs, in_truth = tp + fp + fn > 0, tp + fn > 0
    by_truth, by_pred = (numbered.sum(0) > 0).unbind(-1)
    things = torch.where(in_truth, by_truth, by_pred)
    rq = tp / (tp + fp / 2 + fn / 2)
    sq = torch.where(tp > 0, iou / tp, 0.0)
    scores = {"pq": sq * rq, "sq": sq, "rq": rq}
    groups = {"": occurs, "_things": occurs & things, "_stuff": occurs & ~things}
    return {f"{s}{g}": x[chosen].mean() for g, chosen in groups.items() for s, x in scores.items()}


def _image(pred: Tensor, labels: Tensor, instances: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """`segments "k 4"` and `numbered "k 2"` of one image."""
    truth, guess = _segments(labels, instances), _segments(*pred)
    overlap = _overlap(truth, guess)
    known, named = truth.classes != IGNORE, guess.classes != IGNORE
    counted = known & (truth.numbers != CROWD)
    iou = torch.where(counted[:, None] & named, _iou(truth, guess, overlap), 0.0)
    hit, matched = (iou > MATCH).any(1), (iou > MATCH).any(0)
    extra = named & ~matched & ~_forgiven(truth, guess, overlap)
    columns = [
        _by_class(truth.classes[hit], iou.amax(1)[hit], classes),
        _count(truth.classes[hit], classes),
        _count(guess.classes[extra], classes),
        _count(truth.classes[counted & ~hit], classes),
    ]
    numbered = [
        _count(truth.classes[known & (truth.numbers != 0)], classes),
        _count(guess.classes[named & (guess.numbers > 0)], classes),
    ]
    return torch.stack(columns, -1), (torch.stack(numbered, -1) > 0).double()


def _iou(truth: Segments, guess: Segments, overlap: Tensor) -> Tensor:
    """Of segments of the same class, else 0, "s s'"; the union leaves out the guess on void."""
    on_void = overlap[truth.classes == IGNORE].sum(0)
    union = overlap.sum(1, keepdim=True) + overlap.sum(0) - overlap - on_void
    return torch.where(truth.classes[:, None] == guess.classes, overlap / union, 0.0)


def _forgiven(truth: Segments, guess: Segments, overlap: Tensor) -> Tensor:
    """Which guesses lie by more than half on void and on crowds of their class, bool "s'"."""
    void = (truth.classes == IGNORE)[:, None]
    crowd = (truth.numbers == CROWD)[:, None] & (truth.classes[:, None] == guess.classes)
    excused = torch.where(void | crowd, overlap, 0.0).sum(0)
    return excused / overlap.sum(0) > 0.5


def _segments(classes: Tensor, numbers: Tensor) -> Segments:
    span = 1 << 40  # more than any class id has instances
    codes, where = torch.unique(
        classes.long().flatten() * span + numbers.long().flatten() + 1, return_inverse=True
    )
    return Segments(codes // span, codes % span - 1, where)


def _overlap(truth: Segments, guess: Segments) -> Tensor:
    """Pixels shared by each true and each predicted segment, float64 "s s'"."""
    rows, columns = len(truth.classes), len(guess.classes)
    cells = torch.bincount(truth.where * columns + guess.where, minlength=rows * columns)
    return cells.double().reshape(rows, columns)


def _by_class(ids: Tensor, values: Tensor, classes: int) -> Tensor:
    return values.new_zeros(classes).index_add(0, ids, values)


def _count(ids: Tensor, classes: int) -> Tensor:
    return torch.bincount(ids, minlength=classes).double()
