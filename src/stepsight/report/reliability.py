"""Reliability diagrams: does the uncertainty that an answer states come true?

The points are totals over images of the sums in `metrics.uncertainty`: for depth and flow the share
of the truth that central intervals cover, calibrated ones and those of the members as they are; for
masks the frequency of the object among pixels of like probability, for classes the accuracy among
answers of like probability. On the diagonal what is stated comes true; error bars are 95 %
bootstrap intervals over images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from stepsight.metrics.masked import Rows
from stepsight.metrics.uncertainty import BINS
from stepsight.report import figures
from stepsight.scaling.intervals import ratio_interval
from stepsight.tasks.config import scored_tasks

AXES = {  # stated and observed, by what tasks are calibrated as (`TaskSettings.calibrated`)
    "intervals": ("level of the interval", "truth inside"),
    "probability": ("stated probability of the object", "frequency of the object"),
    "answers": ("stated probability of the answer", "answers that are right"),
}
RESAMPLES = 500


class Reliability(NamedTuple):
    """The points of a diagram, "k" each, of the levels or bins that have any weight."""

    stated: NDArray[np.float64]
    observed: NDArray[np.float64]
    bars: NDArray[np.float64]  # "2 k", lengths below and above
    share: NDArray[np.float64]  # of the weight

    @property
    def error(self) -> float:
        """Mean of |observed - stated| by weight, the ECE (Guo et al. 2017, eq. 3)."""
        return float(self.share @ abs(self.observed - self.stated))


def reliability(sums: NDArray[np.float64]) -> Reliability:
    """The points of sums "n k 3" of n images."""
    total = sums.sum(axis=0)
    held = total[:, 0] > 0
    weight, stated, observed = total[held].T
    ends = [_interval(column) for column in np.moveaxis(sums[:, held], 1, 0)]
    return Reliability(
        stated / weight, observed / weight, np.reshape(ends, (-1, 2)).T, weight / weight.sum()
    )


def expected_coverage(levels: NDArray[np.float64], members: int) -> NDArray[np.float64]:
    """What normal intervals cover where truth and members are draws from one normal distribution.

    Mean and deviation of few members are themselves uncertain: the truth's distance from the mean,
    in deviations, follows Student's t with E - 1 degrees of freedom times sqrt(1 + 1/E) (Geisser
    1993, Predictive Inference, sec. 2.2), so that even a perfect ensemble covers less than stated.
    """
    from scipy.special import ndtri, stdtr  # deferred: slow to import

    reach = ndtri((1 + levels) / 2) / np.sqrt(1 + 1 / members)
    return 2 * stdtr(members - 1, reach) - 1


def write_reliability(path: Path, task: str, rows: Rows, members: int) -> Path | None:
    """Draw the diagram of a task from the uncertainty rows of its answers (`evaluation.spread`).

    None, and no file, where the rows hold no calibration or nothing was scored.
    """
    points = _points(rows, "calibration")
    if points is None:
        return None
    raw = _points(rows, "calibration_raw")
    return figures.to_png(reliability_diagram(points, task, members, raw), path)


def _points(rows: Rows, name: str) -> Reliability | None:
    sums = rows.get(name)
    if sums is None or not bool((sums[..., 0] > 0).any()):
        return None
    return reliability(sums.double().cpu().numpy())


@matplotlib.rc_context(figures.STYLE)
def reliability_diagram(
    points: Reliability, task: str, members: int, raw: Reliability | None = None
) -> Figure:
    """Observed against stated, and below it how much of the data stands at each point.

    raw: of the members as they are, where `points` are those of calibrated intervals.
    """
    kind = scored_tasks()[task].calibrated
    binned = kind != "intervals"
    figure = Figure(figsize=(4.2, 4.9 if binned else 4.2), layout="constrained")
    upper, *lower = figure.subplots(
        1 + binned, 1, sharex=True, height_ratios=(5, 1)[: 1 + binned], squeeze=False
    )[:, 0]
    _diagonal(upper, members, expected=not binned and raw is None)
    if raw is not None:
        _curve(upper, raw, "raw members", figures.PALETTE[1], "s")
    _curve(upper, points, "calibrated" if raw else "measured", figures.PALETTE[0], "o")
    stated, observed = AXES[kind]
    whose = f"{members} members" if members > 1 else "one answer"
    upper.set(title=f"{task}: reliability of {whose}", ylabel=observed)
    upper.legend(loc="best")
    for axes in lower:
        axes.bar(points.stated, points.share, width=0.7 / BINS, color=figures.PALETTE[0])
        axes.set(ylabel="pixels", yscale="log", ylim=(min(1e-3, points.share.min() / 2), 1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    (lower or [upper])[-1].set_xlabel(stated)
    return figure


def _curve(axes: Axes, points: Reliability, what: str, colour: str, marker: str) -> None:
    label = f"{what}, ECE {100 * points.error:.1f} %"
    look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "capsize": 3}
    axes.errorbar(points.stated, points.observed, points.bars, **look, label=label)


def _diagonal(axes: Axes, members: int, expected: bool) -> None:
    """The unit square with its diagonal, and what perfect intervals of few members reach."""
    axes.plot([0, 1], [0, 1], color=figures.INK, linewidth=1, alpha=0.6, label="perfect")
    if expected and members > 1:
        levels = np.linspace(0.01, 0.99, 99)
        reached = expected_coverage(levels, members)
        look = {"color": figures.PALETTE[1], "linewidth": 1.4, "dashes": figures.DASHES[0]}
        axes.plot(levels, reached, **look, label=f"perfect, of {members} members")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))


def _interval(column: NDArray[np.float64]) -> tuple[float, float]:
    """Lengths below and above of a level or bin, "n 3"; 0 where they are unknown."""
    share = ratio_interval(column[:, 2], column[:, 0], resamples=RESAMPLES)
    below, above = share.value - share.lo, share.hi - share.value
    return max(0.0, np.nan_to_num(below)), max(0.0, np.nan_to_num(above))
