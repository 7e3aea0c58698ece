"""The one figure of what compute buys, for the first screen of a page: every task, one line each.

Metrics of different tasks share an axis as errors in percent of one of their own: what the cheapest
setting makes (`cost_curve`), or the best predictor that has not seen the picture
(`learning_curve`). 100 % is where a line starts or what it has to beat; lower is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stepsight.measures import main_metric, measure
from stepsight.report import figures
from stepsight.report.figures import COLUMN, REFERENCE, STYLE, colour, look
from stepsight.report.run_folder import Row, by
from stepsight.report.sweep.folder import SweepFolder
from stepsight.results import Result


class Bought(NamedTuple):
    """The best of a task for so many model calls or fewer."""

    calls: int
    error: float
    luck: bool  # whether it may be no better than the point before


def cost_curve(source: SweepFolder | Sequence[Result]) -> Figure | None:
    """Error against model calls per image, as measured on the same pictures: of a sweep, or of
    scores at several settings. None where no task was scored at two costs.

    A hollow mark may be luck: the interval of its gain over the point before holds 0, or is not
    known.
    """
    swept = isinstance(source, SweepFolder)
    lines = _of_sweep(source) if swept else _of_results(source)
    shown = {task: line for task, line in lines.items() if _is_curve(*line)}
    return _drawn(shown) if shown else None


def _is_curve(points: Sequence[Bought], most: int) -> bool:
    """Whether more was tried than the cheapest setting, whose error others can be a share of."""
    return bool(points) and points[0].error > 0 and most > points[0].calls


def _of_sweep(sweep: SweepFolder) -> dict[str, tuple[list[Bought], int]]:
    """By task the frontier, and the most calls that were tried."""
    return {
        task: (
            [Bought(p.cell.total_calls, p.cell.error, not p.sure) for p in sweep.frontier(task)],
            max(cell.total_calls for cell in sweep.main(task)),
        )
        for task in sweep.tasks
    }


def _of_results(results: Sequence[Result]) -> dict[str, tuple[list[Bought], int]]:
    """The same of scores under the first protocol of each task."""
    lines: dict[str, tuple[list[Bought], int]] = {}
    for (task,), rows in by([row for row in results if row.main and row.nfe], "task"):
        first, best = rows[0], np.inf
        way = first.data, first.protocol, first.main
        same = [row for row in rows if (row.data, row.protocol, row.main) == way]
        cost = {id(row): row.nfe * row.members for row in same}
        points: list[Bought] = []
        for row in sorted(same, key=lambda row: cost[id(row)]):
            error = measure(first.main).error(row.metrics[first.main])
            if error < best:
                points, best = [*points, Bought(cost[id(row)], error, True)], error
        lines[task] = points, max(cost.values())
    return lines


@matplotlib.rc_context(STYLE)
def _drawn(lines: dict[str, tuple[list[Bought], int]]) -> Figure:
    axes_of = "model calls per image (NFE x members)", "error, % of the cheapest setting"
    figure, axes = figures.new_axes("", *axes_of, COLUMN)
    ends = []
    for i, (task, (points, most)) in enumerate(lines.items()):
        share = [100 * point.error / points[0].error for point in points]
        calls = [point.calls for point in points]
        axes.plot([*calls, most], [*share, share[-1]], color=colour(i), drawstyle="steps-post")
        for x, y, point in zip(calls, share, points):
            hollow = point.luck and point is not points[0]
            axes.plot(x, y, **look(i), ms=5.5, mew=1.3, mfc="none" if hollow else colour(i))
        ends.append((f"{task} {share[-1]:.0f} %", share[-1]))
    figures.powers_of_two(axes, [1, *(most for _, most in lines.values())])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    _name(axes, ends)
    return figure


@matplotlib.rc_context(STYLE)
def learning_curve(rows: Sequence[Row]) -> Figure | None:
    """Validation error against images seen, one line a task at its first setting, in percent of
    the best trivial predictor, which is the dashed line. None before the first validation.

    rows: of metrics.jsonl, kind "val".
    """
    ordered = by(sorted(rows, key=lambda row: row["images_seen"]), "task")
    every = {task: _learned(task, group) for (task,), group in ordered}
    lines = {task: points for task, points in every.items() if points}
    if not lines:
        return None
    axes_of = "images seen", "error, % of the best trivial predictor"
    figure, axes = figures.new_axes("", *axes_of, COLUMN)
    for i, points in enumerate(lines.values()):
        axes.plot(*zip(*points), **look(i), ms=5)
    axes.axhline(100, **REFERENCE)
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter(FuncFormatter(figures.short))
    _name(
        axes, [(f"{task} {points[-1][1]:.0f} %", points[-1][1]) for task, points in lines.items()]
    )
    return figure


def _learned(task: str, rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Images seen and error in percent; [] without a metric or a predictor to compare with."""
    metric = main_metric(task, rows[-1]["metrics"])
    if metric is None:
        return []
    error = measure(metric).error
    known = [scores for scores in rows[-1].get("baselines", {}).values() if metric in scores]
    best = min((error(scores[metric]) for scores in known), default=0.0)
    setting = [row for row in by(rows, "data", "nfe", "members")[0][1] if metric in row["metrics"]]
    shares = [(r["images_seen"], 100 * error(r["metrics"][metric]) / best) for r in setting if best]
    return [point for point in shares if np.isfinite(point[1])]


def _name(axes: Axes, ends: Sequence[tuple[str, float]]) -> None:
    """Names beside the ends of the lines, moved apart where they meet; a dot of a line's colour
    says whose each is, so that words keep the ink of the page."""
    low, high = axes.get_ylim()
    place, step = -np.inf, (high - low) * 0.075
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for i in sorted(range(len(ends)), key=lambda i: ends[i][1]):
        text, y = ends[i]
        place = max(y, place + step)
        axes.annotate("●", (1, place), xytext=(4, 0), color=colour(i), va="center", size=9, **at)
        axes.annotate(text, (1, place), xytext=(15, 0), va="center", size=9.5, **at)
