"""Rows that are counts of each image, of whose sums over a set metrics are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stepsight.metrics.masked import Rows
from stepsight.metrics.masks import cityscapes
from stepsight.metrics.masks.panoptic import QUALITIES, quality
from stepsight.metrics.masks.segmentation import miou, pixel_accuracy
from stepsight.metrics.normals import median_angle
from stepsight.metrics.protocol import Protocol

TABLES = {"confusion", "weighted", "segments", "numbered", "angles"}  # names of such rows
Score = Callable[[Tensor], Tensor]  # of sums of counts "r ..." -> "r"


class Tally(NamedTuple):
    """Counts "n ..." of images, and what makes metrics of sums over them."""

    counts: Tensor
    metrics: Mapping[str, Score]


def table(rows: Rows, rule: Protocol | None = None) -> Tally | None:
    """The counts among `rows` with the metrics that the protocol asks for; without a protocol, with
    all, as those of single images are taken. None where there are no counts."""
    if "segments" in rows:
        found = _segments(rows["segments"], rows["numbered"])
    elif "angles" in rows:
        found = Tally(rows["angles"], {"median_angle": median_angle})
    elif "confusion" in rows:
        found = _classes(rows["confusion"], rows.get("weighted"), rule)
    else:
        return None
    asked = rule.metrics if rule and rule.metrics else found.metrics
    return Tally(
        found.counts, {name: found.metrics[name] for name in found.metrics if name in asked}
    )


def _segments(segments: Tensor, numbered: Tensor) -> Tally:
    def of(name: str, sums: Tensor) -> Tensor:
        return torch.stack([quality(x[None, :, :4], x[None, :, 4:])[name] for x in sums])

    counts = torch.cat([segments, numbered], dim=-1)
    return Tally(counts, {name: partial(of, name) for name in QUALITIES})


def _classes(confusion: Tensor, weighted: Tensor | None, rule: Protocol | None) -> Tally:
    """Metrics of confusion "n k k" and, beside it, of weighted instances "n k 3"."""
    k = confusion.shape[-1]
    iou = partial(miou, absent=rule.absent if rule else "skipped")
    metrics: dict[str, Score] = {
        "miou": lambda sums: iou(sums[..., :k]),
        "pixel_accuracy": lambda sums: pixel_accuracy(sums[..., :k]),
        "mean_score": lambda sums: (iou(sums[..., :k]) + pixel_accuracy(sums[..., :k])) / 2,
    }
    if weighted is None:
        return Tally(confusion, metrics)
    metrics["category_iou"] = lambda sums: cityscapes.category_iou(sums[..., :k])
    for name in ("instance_iou", "category_instance_iou"):
        score = getattr(cityscapes, name)
        metrics[name] = lambda sums, score=score: score(sums[..., :k], sums[..., k:])
    return Tally(torch.cat([confusion, weighted], dim=-1), metrics)
