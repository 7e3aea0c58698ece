"""What the rows of images amount to: metrics with intervals, ratios, one number an image.

Every metric is a function of sums over images: a mean, a quotient of pooled sums, or a score of a
confusion matrix or of panoptic counts. So its interval resamples images and sums anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stepsight.metrics.masked import Rows
from stepsight.metrics.panoptic import quality
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import COUNTS, QUADRATIC, WEIGHT
from stepsight.metrics.segmentation import miou, pixel_accuracy
from stepsight.scaling.intervals import Interval, mean_interval, pooled_interval, ratio_interval

Numbers = NDArray[np.float64]


class Pool(NamedTuple):
    """A metric of the whole set: `of` applied to the sum of `rows` "n ..." over images."""

    rows: Numbers
    of: Callable[[Numbers], float]


def interval(rows: Rows, metric: str, rule: Protocol) -> Interval:
    """The metric of a set with its bootstrap interval over images."""
    pool = _pool(rows, metric, rule)
    if pool is None:
        return mean_interval(per_image(rows, metric))
    return pooled_interval(pool.rows, pool.of)


def ratio(rows: Rows, other: Rows, metric: str, rule: Protocol) -> dict[str, float]:
    """metric / the other's metric with a paired interval; below 1 is less."""
    ours, theirs = _pool(rows, metric, rule), _pool(other, metric, rule)
    if ours is None or theirs is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = ratio_interval(per_image(rows, metric), per_image(other, metric))
    else:
        both = np.stack([ours.rows, theirs.rows], axis=1)
        found = pooled_interval(both, lambda pair: ours.of(pair[0]) / max(ours.of(pair[1]), 1e-12))
    return {"ratio": found.value, "lo": found.lo, "hi": found.hi}


def per_image(rows: Rows, metric: str) -> Numbers:
    """One number an image, for paired comparisons; metrics of tables are taken image by image."""
    if metric in rows:
        return rows[metric].double().numpy()
    table, of = _table(rows, metric)
    return np.array([of(one) for one in table])


def measured(rows: Rows) -> list[str]:
    """The metrics that `per_image` has."""
    if "confusion" in rows:
        return ["miou", "pixel_accuracy"]
    if "segments" in rows:
        return ["pq", "sq", "rq"]
    return [name for name in rows if name not in COUNTS]


def _pool(rows: Rows, metric: str, rule: Protocol) -> Pool | None:
    """None for a mean over images."""
    if metric not in rows:
        pooled = rule.averaging == "pooled" or "segments" in rows
        return Pool(*_table(rows, metric)) if pooled else None
    if rule.averaging != "pooled" and metric not in rule.pooled:
        return None
    weight = rows[WEIGHT.get(metric, "n")].double().numpy()
    power = 2 if metric in QUADRATIC else 1
    value = np.where(weight > 0, rows[metric].double().numpy(), 0.0) ** power
    return Pool(np.stack([weight * value, weight], axis=1), lambda s: _root(s[0], s[1], power))


def _table(rows: Rows, metric: str) -> tuple[Numbers, Callable[[Numbers], float]]:
    """Counts "n ..." and what makes the metric of them."""
    if "confusion" in rows:
        return rows["confusion"].double().numpy(), _OF_CONFUSION[metric]
    counts = torch.cat([rows["segments"], rows["numbered"]], dim=-1).double().numpy()
    return counts, lambda one: float(_quality(one)[metric])


def _quality(counts: Numbers) -> Rows:
    segments = torch.from_numpy(counts)[None]
    return quality(segments[..., :4], segments[..., 4:])


def _root(total: float, weight: float, power: int) -> float:
    return float((total / weight) ** (1 / power)) if weight else float("nan")


def _miou(confusion: Numbers) -> float:
    return float(miou(torch.from_numpy(confusion)))


def _accuracy(confusion: Numbers) -> float:
    return float(pixel_accuracy(torch.from_numpy(confusion)))


_OF_CONFUSION: dict[str, Callable[[Numbers], float]] = {
    "miou": _miou,
    "pixel_accuracy": _accuracy,
    "mean_score": lambda confusion: (_miou(confusion) + _accuracy(confusion)) / 2,
}
