"""The report's section on a mixture of experts: which experts a task uses, and how evenly.

A router that sends all tokens to a few experts wastes the others; one that sends each task to
experts of its own has specialised. Training rows tell: their `experts/<task>` holds the share of
the task's routed tokens that went to each expert, a list a layer.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepsight.report import figures
from stepsight.report.markup import Html, join, plot, tag
from stepsight.report.run_folder import Row

KEY = "experts/"
EXPLAINED = (
    "Share of a task's tokens that each expert received in the last steps logged; the mark on the "
    "scale is an even share. Imbalance is the load of a layer's busiest expert against an even one."
)


def expert_section(rows: list[Row]) -> Html:
    """The section for training rows; nothing for a dense network."""
    usage = {name.removeprefix(KEY): shares(rows, name) for name in _recorded(rows)}
    if not usage:
        return Html()
    highest = max(float(share[-1].max()) for _, share in usage.values())
    maps = [
        plot(expert_map(share[-1], task, highest), f"experts that {task} uses")
        for task, (_, share) in usage.items()
    ]
    curves = plot(imbalance_curves(usage), "imbalance of the experts against images seen")
    return join(curves, tag("div", *maps, _class="figures"), tag("p", EXPLAINED, _class="small"))


def shares(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images seen "r" and shares "r layers experts" of the rows that have `key`."""
    found = [row for row in rows if key in row]
    images = np.array([row["images_seen"] for row in found])
    return images, np.array([row[key] for row in found])


def imbalance(share: np.ndarray) -> np.ndarray:
    """Shares "... layers experts" to "...": the busiest expert's load over an even one, mean over
    layers. 1 is even; as many as there are experts is every token to the same one."""
    return share.max(axis=-1).mean(axis=-1) * share.shape[-1]


@matplotlib.rc_context(figures.STYLE)
def expert_map(share: np.ndarray, task: str, highest: float) -> Figure:
    """Shares "layers experts" as colours from 0 to `highest`, the first layer on top."""
    layers, experts = share.shape
    size = (4.8, min(6.0, 1.5 + 0.22 * layers))
    figure, axes = figures.new_axes(task, "expert", "layer", size=size)
    axes.grid(False)
    edges = np.arange(experts + 1) + 0.5, np.arange(layers + 1) + 0.5
    shown = axes.pcolormesh(*edges, share, cmap="cividis", vmin=0, vmax=highest)
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, label="share of tokens")
    bar.outline.set_visible(False)
    bar.ax.axhline(1 / experts, color=figures.PALETTE[1], linewidth=3)
    bar.ax.text(-0.25, 1 / experts, f"1/{experts}", ha="right", va="center", fontsize=8.5)
    return figure


@matplotlib.rc_context(figures.STYLE)
def imbalance_curves(usage: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """`imbalance` against images seen, one line a task: as measured faint, its trend bold."""
    y = "busiest expert / even load"
    figure, axes = figures.new_axes("Imbalance of the experts", "images seen", y)
    for i, (task, (images, share)) in enumerate(usage.items()):
        values = imbalance(share)
        axes.plot(images, values, color=figures.colour(i), linewidth=0.8, alpha=0.35)
        axes.plot(images, figures.trend(values), color=figures.colour(i), label=task)
    even = axes.axhline(1, color=figures.INK, linewidth=1.1, alpha=0.75)
    even.set(dashes=figures.DASHES[0], label="even")
    figures.finish(axes)
    return figure


def _recorded(rows: list[Row]) -> list[str]:
    found = {key for row in rows for key in row if key.startswith(KEY)}
    return sorted(found, key=figures.house_order)
