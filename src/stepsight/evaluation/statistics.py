"""What the rows of images amount to: metrics with intervals, ratios, one number an image.

Every metric is a function of sums over images: a mean, a quotient of pooled sums, or a score of a
confusion matrix or of panoptic counts. So its interval resamples images and sums anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.panoptic import quality
from stepsight.metrics.masks.segmentation import miou, pixel_accuracy
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import COUNTS, QUADRATIC, WEIGHT
from stepsight.scaling.intervals import (
    Interval,
    Statistic,
    mean_interval,
    pooled_interval,
    ratio_interval,
)
from stepsight.scaling.sampling.paired import Averaging, quotient

Numbers = NDArray[np.float64]


class Pool(NamedTuple):
    """A metric of the whole set: `of` applied to the sum of `rows` "n ..." over images."""

    rows: Numbers
    of: Statistic
    averaging: Averaging = "pooled"

    @property
    def flat(self) -> Pool:
        """The same with rows "n k"."""
        shape = self.rows.shape[1:]
        rows = self.rows.reshape(len(self.rows), -1)
        return Pool(rows, lambda sums: self.of(sums.reshape(-1, *shape)), self.averaging)


def interval(rows: Rows, metric: str, rule: Protocol) -> Interval:
    """The metric of a set with its bootstrap interval over images."""
    found = pool(rows, metric, rule)
    if found is None:
        return mean_interval(per_image(rows, metric))
    return pooled_interval(found.rows, found.of)


def ratio(rows: Rows, other: Rows, metric: str, rule: Protocol) -> dict[str, float]:
    """metric / the other's metric with a paired interval; below 1 is less."""
    ours, theirs = pool(rows, metric, rule), pool(other, metric, rule)
    if ours is None or theirs is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = ratio_interval(per_image(rows, metric), per_image(other, metric))
    else:
        both = np.stack([ours.rows, theirs.rows], axis=1)

        def quotient(pairs: Numbers) -> Numbers:
            return ours.of(pairs[:, 0]) / np.maximum(ours.of(pairs[:, 1]), 1e-12)

        found = pooled_interval(both, quotient)
    return {"ratio": found.value, "lo": found.lo, "hi": found.hi}


def per_image(rows: Rows, metric: str) -> Numbers:
    """One number an image, for paired comparisons; metrics of tables are taken image by image."""
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
    return [name for name in rows if name not in COUNTS]


def pool(rows: Rows, metric: str, rule: Protocol) -> Pool | None:
    """The sums that a metric is made of under the protocol; None for a mean over images."""
    if metric not in rows:
        pooled = rule.averaging == "pooled" or "segments" in rows
        return Pool(*_table(rows, metric)) if pooled else None
    if rule.averaging != "pooled" and metric not in rule.pooled:
        return None
    weight = rows[WEIGHT.get(metric, "n")].double().numpy()
    power = 2 if metric in QUADRATIC else 1
    value = np.where(weight > 0, rows[metric].double().numpy(), 0.0) ** power
    return Pool(np.stack([weight * value, weight], axis=1), lambda s: _root(s, power))


def means(values: Numbers) -> Pool:
    """The mean over images of `values` "n" as a pool, for those that have one (not nan)."""
    return Pool(np.stack([values, np.ones_like(values)], axis=1), quotient, "per image")


def counts(rows: Rows, rule: Protocol) -> dict[str, Numbers]:
    """Columns "n" that give the pooled metrics of a set together with `per_image`: the weights of
    the images, `intersection.<class>` and `union.<class>` of class maps, and the sums
    `segments.<iou, tp, fp, fn>.<class>` of panoptic quality. {} where means are taken over images.
    """
    if "segments" in rows:
        return _by_class(
            "segments", dict(zip(("iou", "tp", "fp", "fn"), rows["segments"].unbind(-1)))
        )
    if rule.averaging == "pooled" and "confusion" in rows:
        confusion = rows["confusion"].double()
        hits = confusion.diagonal(dim1=-2, dim2=-1)
        unions = confusion.sum(-1) + confusion.sum(-2) - hits
        parts = {"intersection": hits, "union": unions}
        return {"n": rows["n"].double().numpy()} | _by_class("", parts)
    pooled = [name for name in measured(rows) if pool(rows, name, rule)]
    weights = dict.fromkeys(WEIGHT.get(name, "n") for name in pooled)
    return {name: rows[name].double().numpy() for name in weights}


def _by_class(prefix: str, parts: dict[str, torch.Tensor]) -> dict[str, Numbers]:
    """Columns of parts "n k", one a class."""
    return {
        ".".join(filter(None, (prefix, name, str(number)))): column.double().numpy()
        for name, part in parts.items()
        for number, column in enumerate(part.unbind(-1))
    }


def _table(rows: Rows, metric: str) -> tuple[Numbers, Statistic]:
    """Counts "n ..." and what makes the metric of their sums."""
    if "confusion" in rows:
        return rows["confusion"].double().numpy(), _OF_CONFUSION[metric]
    columns = torch.cat([rows["segments"], rows["numbered"]], dim=-1).double().numpy()
    return columns, lambda sums: np.array([float(_quality(one)[metric]) for one in sums])


def _quality(counts: Numbers) -> Rows:
    segments = torch.from_numpy(counts)[None]
    return quality(segments[..., :4], segments[..., 4:])


def _root(sums: Numbers, power: int) -> Numbers:
    """Of (total, weight), "r 2" -> "r"; nan where there is no weight."""
    return quotient(sums) ** (1 / power)


def _miou(confusion: Numbers) -> Numbers:
    return miou(torch.from_numpy(confusion)).numpy()


def _accuracy(confusion: Numbers) -> Numbers:
    return pixel_accuracy(torch.from_numpy(confusion)).numpy()


_OF_CONFUSION: dict[str, Statistic] = {
    "miou": _miou,
    "pixel_accuracy": _accuracy,
    "mean_score": lambda confusion: (_miou(confusion) + _accuracy(confusion)) / 2,
}
