"""What the numbers of a run folder are called, which way is better, and how they are written.

The one place for labels and units of metrics: console, figures and report all read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A metric as people read it."""

    label: str
    unit: str = ""
    higher_is_better: bool = False

    @property
    def axis(self) -> str:
        """Label, unit and direction for the axis of a figure."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.label}{unit}, {'higher' if self.higher_is_better else 'lower'} is better"

    def beats(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`."""
        return value > other if self.higher_is_better else value < other


MEASURES = {
    "abs_rel": Measure("AbsRel"),
    "delta1": Measure("δ1", higher_is_better=True),
    "delta2": Measure("δ2", higher_is_better=True),
    "delta3": Measure("δ3", higher_is_better=True),
    "above_1.25": Measure("above 1.25"),
    "sq_rel": Measure("SqRel", "m"),
    "rmse": Measure("RMSE", "m"),
    "irmse": Measure("iRMSE", "1/m"),
    "rmse_log": Measure("log RMSE"),
    "log10": Measure("log10"),
    "silog": Measure("SILog"),
    "silog_half": Measure("SILog (half)"),
    "ordering": Measure("order accuracy", higher_is_better=True),
    "mae_normalised": Measure("MAE, normalised"),
    "rmse_normalised": Measure("RMSE, normalised"),
    "edge_f1": Measure("edge F1", higher_is_better=True),
    "epe": Measure("EPE", "px"),
    "epe_units": Measure("EPE, units"),
    "epe_matched": Measure("EPE matched", "px"),
    "epe_unmatched": Measure("EPE unmatched", "px"),
    "epe_s0_10": Measure("EPE s0-10", "px"),
    "epe_s10_40": Measure("EPE s10-40", "px"),
    "epe_s40": Measure("EPE s40+", "px"),
    "below_1px": Measure("below 1 px", higher_is_better=True),
    "below_3px": Measure("below 3 px", higher_is_better=True),
    "below_5px": Measure("below 5 px", higher_is_better=True),
    "above_1px": Measure("above 1 px"),
    "wauc": Measure("WAUC", "%", higher_is_better=True),
    "fl_all": Measure("Fl-all"),
    "iou": Measure("IoU", higher_is_better=True),
    "iou_hidden": Measure("hidden IoU", higher_is_better=True),
    "miou": Measure("mIoU", higher_is_better=True),
    "pixel_accuracy": Measure("accuracy", higher_is_better=True),
    "mean_angle": Measure("mean angle", "°"),
    "median_angle": Measure("median angle", "°"),
    "below_11.25": Measure("below 11.25°", higher_is_better=True),
    "below_22.5": Measure("below 22.5°", higher_is_better=True),
    "below_30": Measure("below 30°", higher_is_better=True),
    "energy": Measure("energy score"),
    "mean_score": Measure("mean score", higher_is_better=True),
    "pq": Measure("PQ", higher_is_better=True),
    "pq_things": Measure("PQ things", higher_is_better=True),
    "pq_stuff": Measure("PQ stuff", higher_is_better=True),
    "sq": Measure("SQ", higher_is_better=True),
    "rq": Measure("RQ", higher_is_better=True),
    "ause": Measure("AUSE"),
    "aurg": Measure("AURG", higher_is_better=True),
    "spread_error": Measure("rank correlation with the error", higher_is_better=True),
    "coverage_90": Measure("coverage of 90 %"),
    "coverage_90_raw": Measure("coverage of 90 %, raw"),
    "crps": Measure("CRPS"),
    "crps_calibrated": Measure("CRPS, calibrated"),
    "brier": Measure("Brier score"),
    "spread": Measure("spread"),
}

IN_A_LINE = 4  # metrics of a protocol
HEADLINE = {  # the main metric of each task first
    "depth": ("abs_rel", "delta1"),
    "flow": ("epe", "fl_all"),
    "amodal": ("iou", "iou_hidden"),
    "semantic": ("miou", "pixel_accuracy"),
    "panoptic": ("pq", "sq", "rq"),
    "normals": ("mean_angle", "below_30"),
    "image": ("energy",),
}


def measure(name: str) -> Measure:
    """The measure called `name`; one that is not in the table reads as a plain error."""
    return MEASURES.get(name, Measure(name.replace("_", " ")))


def headline(task: str, offered: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """The metrics worth a place in one line, the main one first: of a protocol that names its
    metrics, the first of that `order`, otherwise those of `task`."""
    offered = [name for name in offered if name != "n_images"]
    own = [name for name in order if name in offered][:IN_A_LINE]
    return own or [name for name in HEADLINE.get(task, ()) if name in offered] or offered[:2]


def main_metric(task: str, offered: Iterable[str], order: Sequence[str] = ()) -> str | None:
    """The first of the `headline`; None when nothing is offered."""
    return next(iter(headline(task, offered, order)), None)


def main_of(row: Mapping[str, Any]) -> str | None:
    """The main metric of a row of results or of validation, the one that its ratios compare."""
    return row.get("metric") or main_metric(row["task"], row["metrics"])


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no needless exponent; NaN as a dash."""
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def duration(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12.3s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"
