"""From rows (one number an image) to metrics (one number a set), by an explicit averaging rule.

`per_image`: the mean of the images' values. `pooled`: the value of all pixels of the set taken as
one image. They differ wherever images differ in their number of valid pixels, so a protocol states
which it means. Rows of several batches or processes are concatenated first and reduced once.
"""

from __future__ import annotations

from torch import Tensor

from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Averaging
from stepsight.metrics.segmentation import miou, pixel_accuracy

# A value is a mean over the pixels its row of counts tells, "n" if not named here.
WEIGHT = {"iou": "union", "iou_hidden": "union_hidden", "edge_f1": "edges"}
COUNTS = {"n", *WEIGHT.values()}
QUADRATIC = {"rmse", "rmse_log"}  # roots of means of squares: these pool as squares
NOT_POOLED = {"silog", "edge_f1", "median_angle", "ause"}  # no pooled value follows from the rows


def reduce(rows: Rows, averaging: Averaging) -> dict[str, float]:
    """Metrics of a set, and `n_images`, the number of images that had anything to measure.

    A value is left out where its count is 0 (no valid pixel, no hidden part) and only there: a NaN
    that was measured makes the metric NaN. Pooling leaves out what cannot be pooled exactly
    (`NOT_POOLED`). `confusion` becomes `miou` and `pixel_accuracy`.
    """
    assert averaging in ("per_image", "pooled"), averaging
    metrics = {"n_images": (rows["n"] > 0).sum()}
    for name in rows.keys() - COUNTS - {"confusion"}:
        weight = rows[WEIGHT.get(name, "n")]
        if averaging == "per_image":
            metrics[name] = _mean(rows[name], weight > 0)
        elif name not in NOT_POOLED:
            metrics[name] = _mean(rows[name], weight, power=2 if name in QUADRATIC else 1)
    if "confusion" in rows:
        metrics |= _class_scores(rows["confusion"], averaging)
    return {name: float(metrics[name]) for name in sorted(metrics)}


def _mean(value: Tensor, weight: Tensor, power: int = 1) -> Tensor:
    """(sum w v^power / sum w)^(1/power) over the images with w > 0; NaN where there are none."""
    v, w = value[weight > 0].double(), weight[weight > 0].double()
    return ((w * v**power).sum() / w.sum()) ** (1 / power)


def _class_scores(confusion: Tensor, averaging: Averaging) -> Rows:
    if averaging == "pooled":
        confusion = confusion.sum(0, keepdim=True)
    labelled = confusion[confusion.sum((1, 2)) > 0]
    return {"miou": miou(labelled).mean(), "pixel_accuracy": pixel_accuracy(labelled).mean()}
