"""The figures of a sweep: what each cell reaches, what a call buys, and what the spread is worth.

All take `Cell`s of a task, in the style of `figures`. Settings are written NFE x members.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from stepsight.measures import measure, number
from stepsight.report import figures
from stepsight.report.figures import BELOW, COLUMN, INK, PALETTE, REFERENCE, STYLE, colour, look
from stepsight.report.run_folder import by
from stepsight.report.sweep.folder import told_apart
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.frontier import COSTS, FrontierCell, frontier
from stepsight.scaling.sampling.sweeps import Cell
from stepsight.scaling.sampling.wording import count

COST_AXES = {
    "calls": "model calls per image (NFE x members)",
    "gflop": "GFLOP per image",
    "ms": "milliseconds per image of many",
    "latency": "milliseconds for one image alone",
}


@matplotlib.rc_context(STYLE)
def heat_map(cells: Sequence[Cell], title: str) -> Figure:
    """Model calls (NFE) against members, every cell with its value and the best framed.

    `cells` are of the same metric and family. Brighter is better.
    """
    nfes = sorted({cell.nfe for cell in cells})
    members = sorted({cell.members for cell in cells})
    kind = measure(cells[0].metric)
    values = np.full((len(members), len(nfes)), np.nan)
    for cell in cells:
        values[members.index(cell.members), nfes.index(cell.nfe)] = cell.value

    size = (COLUMN[0], min(5.0, 1.3 + 0.5 * len(members)))
    axes_of = "model calls per member (NFE)", "members"
    figure, axes = figures.new_axes(title, *axes_of, size=size)
    shown = axes.pcolormesh(values, cmap="cividis" if kind.higher_is_better else "cividis_r")
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            luminance = np.dot(np.asarray(shown.to_rgba(value))[:3], (0.299, 0.587, 0.114))
            shade = "white" if luminance < 0.45 else "black"
            style = {"ha": "center", "va": "center", "color": shade, "fontsize": 9}
            axes.text(x + 0.5, y + 0.5, number(value), **style)
    best = np.nanargmax(values) if kind.higher_is_better else np.nanargmin(values)
    y, x = map(int, np.unravel_index(best, values.shape))
    frame = {"fill": False, "edgecolor": PALETTE[1], "linewidth": 3, "clip_on": False}
    axes.add_patch(Rectangle((x, y), 1, 1, **frame))
    axes.set_xticks(np.arange(len(nfes)) + 0.5, [str(nfe) for nfe in nfes])
    axes.set_yticks(np.arange(len(members)) + 0.5, [str(n) for n in members])
    figures.bare(axes)
    return figure


@matplotlib.rc_context(STYLE)
def pareto_plot(cells: Sequence[Cell], title: str, cost: str = "calls") -> Figure:
    """The metric against the cost of an image (`frontier.COSTS`): what compute buys.

    All settings are faint, told apart by sampler, checkpoint and the like where there are several,
    else by members. The measured Pareto set is connected and carries its settings and intervals.
    """
    kind = measure(cells[0].metric)
    figure, axes = figures.new_axes(title, COST_AXES[cost], kind.axis)
    for i, (label, group) in enumerate(_groups(cells).items()):
        points = [getattr(cell, COSTS[cost]) for cell in group], [cell.value for cell in group]
        axes.scatter(*points, **look(i), alpha=0.75, s=28, linewidths=0, label=label)
    front = frontier(cells, cells[0].task, metric=cells[0].metric, cost=cost)
    _draw_front(axes, front)
    _limit(axes, cells, front)
    figures.powers_of_two(axes, [getattr(cell, COSTS[cost]) for cell in cells])
    columns = min(3, len(axes.get_legend_handles_labels()[0]))
    figure.legend(loc=BELOW, ncols=columns, columnspacing=1.2, handletextpad=0.4)
    return figure


@matplotlib.rc_context(STYLE)
def panel(cells: Sequence[Cell]) -> Figure:
    """One metric against members with a line for each NFE: is what gets better for the error also
    better for edges, intervals and the order of the uncertainties?

    Cells are of the same family. The band is the 95 % interval at the most calls.
    """
    figure, axes = figures.new_axes("", "members", _panel_title(cells[0].metric))
    nfes = sorted({cell.nfe for cell in cells})
    for i, nfe in enumerate(nfes):
        line = sorted((cell for cell in cells if cell.nfe == nfe), key=lambda cell: cell.members)
        x, y = [cell.members for cell in line], [cell.value for cell in line]
        axes.plot(x, y, **look(i), ms=4.5, linewidth=1.5, label=f"{nfe} NFE")
        if nfe == nfes[-1]:
            ends = [cell.lo for cell in line], [cell.hi for cell in line]
            axes.fill_between(x, *ends, color=colour(i), alpha=0.13, linewidth=0)
    if cells[0].metric.startswith("coverage_"):
        axes.axhline(float(cells[0].metric.removeprefix("coverage_")) / 100, **REFERENCE)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    members = [cell.members for cell in cells]
    figures.powers_of_two(axes, members)
    axes.set_xlim(min(members) / 1.1, max(members) * 1.1)
    figure.legend(loc=BELOW, ncols=min(4, len(nfes)))
    return figure


def _panel_title(metric: str) -> str:
    """The metric with its direction, where it has one."""
    if metric.startswith("coverage_"):
        return f"{measure(metric).label}, dashed: as stated"
    return "mean spread" if metric == "spread" else measure(metric).axis


def _groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells by family where there are several, else by members."""
    families = by_family(cells)
    if len(families) > 1:
        names = told_apart(families)
        return {names[family]: group for family, group in families.items()}
    groups = by(sorted(cells, key=lambda cell: cell.members), "members")
    return {count(members, "member"): group for (members,), group in groups}


def _draw_front(axes: Axes, front: Sequence[FrontierCell]) -> None:
    """The Pareto set, each point with its setting beside the line, in the band of its intervals."""
    climbs = measure(front[0].cell.metric).higher_is_better
    costs, values = [point.cost for point in front], [point.cell.value for point in front]
    ring = {"marker": "o", "ms": 7.5, "mfc": "none", "mew": 1.1}  # whose point it is stays visible
    axes.plot(costs, values, color=INK, linewidth=1.3, **ring, label="Pareto set")
    ends = [point.cell.lo for point in front], [point.cell.hi for point in front]
    axes.fill_between(costs, *ends, color=INK, alpha=0.09, linewidth=0, label="95 % interval")
    for point in front:
        axes.annotate(
            f"{point.cell.nfe}x{point.cell.members}",
            (point.cost, point.cell.value),
            xytext=(-5 if climbs else 5, 5),
            ha="right" if climbs else "left",
            textcoords="offset points",
            fontsize=9,
        )


def _limit(axes: Axes, cells: Sequence[Cell], front: Sequence[FrontierCell]) -> None:
    """The axis of the metric: all points, and of the band as much again on either side. Intervals
    over images are often much wider than what settings differ by on the same images."""
    low, high = min(cell.value for cell in cells), max(cell.value for cell in cells)
    height = (high - low) or abs(high) or 1.0
    ends = [end for point in front for end in (point.cell.lo, point.cell.hi)]
    known = [end for end in ends if np.isfinite(end)]
    bottom = max(min([low - 0.08 * height, *known]), low - height)
    top = min(max([high + 0.08 * height, *known]), high + height)
    axes.set_ylim(bottom, top)
