"""What the rows of images amount to: metrics with intervals, ratios, a number per image.

Every metric is a function of sums over images: a mean, a quotient of pooled sums, or a score of a
confusion matrix or of panoptic counts. So its interval resamples images and sums anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepsight.measures import measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import count_names
from stepsight.metrics.tables import TABLES, table
from stepsight.scaling.intervals import (
    Interval,
    Statistic,
    mean_interval,
    pooled_interval,
    quotient,
    ratio_interval,
)
from stepsight.scaling.sampling.paired import Averaged, Numbers


class Pool(NamedTuple):
    """A metric of the whole set: `of` applied to the sum of `rows` "n ..." over images."""

    rows: Numbers
    of: Statistic
    averaging: Averaged = "pooled"

    @property
    def flat(self) -> Pool:
        """The same with rows "n k"."""
        shape = self.rows.shape[1:]
        rows = self.rows.reshape(len(self.rows), -1)
        return Pool(rows, lambda sums: self.of(sums.reshape(-1, *shape)), self.averaging)


def interval(rows: Rows, metric: str, protocol: Protocol) -> Interval:
    """The metric of a set with its bootstrap interval over images."""
    pooled = pool(rows, metric, protocol)
    if pooled is None:
        return mean_interval(per_image(rows, metric))
    return pooled_interval(pooled.rows, pooled.of)


def ratio(rows: Rows, other: Rows, metric: str, protocol: Protocol) -> Interval:
    """metric / the other's metric with a paired interval; below 1 is less."""
    ours, theirs = pool(rows, metric, protocol), pool(other, metric, protocol)
    if ours is None or theirs is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            return ratio_interval(per_image(rows, metric), per_image(other, metric))

    def quotient(pairs: Numbers) -> Numbers:
        below = ours.of(pairs[:, 1])
        return ours.of(pairs[:, 0]) / np.where(abs(below) < 1e-12, 1e-12, below)

    return pooled_interval(np.stack([ours.rows, theirs.rows], axis=1), quotient)


def stacked(rows: Sequence[Rows]) -> Rows:
    """Rows along a new first axis."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def concatenated(parts: Sequence[Rows]) -> Rows:
    """The rows of several batches, together."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def per_image(rows: Rows, metric: str) -> Numbers:
    """One number per image, for paired comparisons; metrics of tables are taken image by image."""
    if metric in rows:
        return rows[metric].double().numpy()
    table, of = _table(rows, metric)
    return of(table)


def measured(rows: Rows) -> list[str]:
    """The metrics that `per_image` has."""
    if "confusion" in rows:
        return ["miou", "pixel_accuracy"]
    if "segments" in rows:
        return ["pq", "sq", "rq"]
    values = [name for name in rows if name not in count_names() | TABLES]
    return [*values, "median_angle"] if "angles" in rows else values


def pool(rows: Rows, metric: str, protocol: Protocol) -> Pool | None:
    """The sums that a metric is made of under the protocol; None for a mean over images."""
    if metric not in rows:
        pooled = protocol.averaging == "pooled" or "segments" in rows
        return Pool(*_table(rows, metric, protocol)) if pooled else None
    if protocol.averaging != "pooled" and metric not in protocol.pooled:
        return None
    kind = measure(metric)
    weight, power = rows[kind.count].double().numpy(), kind.power
    value = np.where(weight > 0, rows[metric].double().numpy(), 0.0) ** power
    sums = np.stack([weight * value, weight], axis=1)
    return Pool(sums, lambda totals: quotient(totals) ** (1 / power))


def means(values: Numbers) -> Pool:
    """The mean over images of `values` "n" as a pool, for those that have one (not nan)."""
    return Pool(np.stack([values, np.ones_like(values)], axis=1), quotient, "per image")


def counts(rows: Rows, protocol: Protocol) -> dict[str, Numbers]:
    """Columns "n" that give the pooled metrics of a set together with `per_image`: the weights of
    the images, `intersection.<class>` and `union.<class>` of class maps, and the sums
    `segments.<iou, tp, fp, fn>.<class>` of panoptic quality. {} where means are taken over images.
    They do not give the median of angles, nor what Cityscapes makes of instances.
    """
    if "segments" in rows:
        return _by_class(
            "segments", dict(zip(("iou", "tp", "fp", "fn"), rows["segments"].unbind(-1)))
        )
    if protocol.averaging == "pooled" and "confusion" in rows:
        confusion = rows["confusion"].double()
        hits = confusion.diagonal(dim1=-2, dim2=-1)
        unions = confusion.sum(-1) + confusion.sum(-2) - hits
        parts = {"intersection": hits, "union": unions}
        return {"n": rows["n"].double().numpy()} | _by_class("", parts)
    pooled = [name for name in measured(rows) if pool(rows, name, protocol)]
    weights = dict.fromkeys(measure(name).count for name in pooled)
    return {name: rows[name].double().numpy() for name in weights}


def _by_class(prefix: str, parts: dict[str, Tensor]) -> dict[str, Numbers]:
    """Columns of parts "n k", one per class."""
    return {
        ".".join(filter(None, (prefix, name, str(number)))): column.double().numpy()
        for name, part in parts.items()
        for number, column in enumerate(part.unbind(-1))
    }


def _table(rows: Rows, metric: str, protocol: Protocol | None = None) -> tuple[Numbers, Statistic]:
    """Counts "n ..." and what makes the metric of their sums."""
    counted = table(rows, protocol)
    assert counted is not None, metric
    score = counted.metrics[metric]
    return counted.counts.double().numpy(), lambda sums: score(torch.from_numpy(sums)).numpy()
