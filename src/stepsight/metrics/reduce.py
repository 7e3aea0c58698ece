"""From rows (one number per image) to metrics (one per set), by an explicit averaging rule.

`per_image`: the mean of the images' values. `pooled`: the value of all pixels of the set taken as
one image. They differ wherever images differ in their number of valid pixels, so a protocol states
which it means, if need be metric by metric. Rows of several batches or processes are concatenated
first and reduced once.
"""

from __future__ import annotations

from torch import Tensor

from stepsight.measures import measure, measures
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.tables import TABLES, table


def count_names() -> set[str]:
    """The rows that count pixels, which values are means over (`Measure.count`)."""
    return {"n", *(row.count for row in measures().values())}


def reduce(rows: Rows, protocol: Protocol) -> dict[str, float]:
    """Metrics of a set, and `n_images`, the number of images that had anything to measure.

    A value is left out where its count is 0 (no valid pixel, no hidden part) and only there: a NaN
    that was measured makes the metric NaN. Pooling leaves out what cannot be pooled exactly
    (`Measure.pools`). Counts become the metrics of their `table`, those of segments always of the
    whole set.
    """
    metrics = {"n_images": (rows["n"] > 0).sum()}
    for name in rows.keys() - count_names() - TABLES:
        kind = measure(name)
        weight = rows[kind.count]
        if protocol.averaging == "per_image" and name not in protocol.pooled:
            metrics[name] = _mean(rows[name], weight > 0)
        elif kind.pools:
            metrics[name] = _mean(rows[name], weight, kind.power)
    counted = table(rows, protocol)
    if counted and protocol.averaging == "per_image" and "segments" not in rows:
        labelled = counted.counts[rows["n"] > 0]
        metrics |= {name: of(labelled).mean() for name, of in counted.metrics.items()}
    elif counted:
        total = counted.counts.sum(0, keepdim=True)
        metrics |= {name: of(total)[0] for name, of in counted.metrics.items()}
    return {name: float(metrics[name]) for name in sorted(metrics)}


def reported(rows: Rows, protocol: Protocol) -> Rows:
    """The rows of the protocol's metrics, with the counts and tables they rest on."""
    if not protocol.metrics:
        return rows
    kept = {"n", *TABLES, *protocol.metrics} | {measure(name).count for name in protocol.metrics}
    return {name: row for name, row in rows.items() if name in kept}


def _mean(value: Tensor, weight: Tensor, power: int = 1) -> Tensor:
    """(sum w v^power / sum w)^(1/power) over the images with w > 0; NaN where there are none."""
    v, w = value[weight > 0].double(), weight[weight > 0].double()
    return ((w * v**power).sum() / w.sum()) ** (1 / power)
