"""The figures of a run, in one style: training and validation curves, the use of experts, and what
other figures build on.

Every function returns a matplotlib `Figure` that has never met pyplot (no global state, no window);
`to_svg` and `to_png` write it. Colours are those of Okabe and Ito (2008), told apart by readers
with any colour vision; line style and marker repeat what colour says. In SVG the ink is the text
colour of the surrounding page, so figures follow its light or dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from stepsight.measures import main_metric, measure, number, spoken
from stepsight.report.run_folder import Row, validation_lines
from stepsight.tasks.config import scored_tasks

INK = "#22262b"
# Inches of a figure that a column holds. A phone shows it 320 px wide: a wider one would have
# letters below 9 px there.
COLUMN = (4.4, 3.3)
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2))
REFERENCE: dict[str, Any] = {"color": INK, "linewidth": 1.1, "alpha": 0.75, "dashes": DASHES[0]}
EXPERTS = "experts/"  # and the task: the share of its tokens per expert, one list per layer
TITLE = 44  # letters of a line of a title
BELOW = "outside lower center"  # where legends stand
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names come from outside: a dollar sign is a dollar sign
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def to_svg(figure: Figure, title: str) -> Markup:
    """The figure as an `<svg>` element to put into a page, a picture called `title`.

    Ink becomes `currentColor`, the first colour the page's `--blue` if it has one (deep blue is
    hard to see on dark), and the width that of the column.
    """
    sink = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="svg", bbox_inches="tight", pad_inches=0.05)
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = svg.replace(PALETTE[0], f"var(--blue, {PALETTE[0]})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return Markup(svg.replace(">", f"><title>{escape(title)}</title>", 1))


def to_png(figure: Figure, path: Path) -> Path:
    """Write the figure on white at 150 dots per inch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
    return path


@matplotlib.rc_context(STYLE)
def training_curves(rows: list[Row]) -> Figure:
    """Training loss against images seen, one line per task: raw values faint, their trend bold."""
    keys = {key for row in rows for key in row if key.startswith("loss/")} or {"loss"}
    figure, axes = new_axes("Training loss", "images seen", "loss (weighted mean squared error)")
    for i, key in enumerate(sorted(keys, key=house_order)):
        points = [(row["images_seen"], row[key]) for row in rows if row.get(key, 0) > 0]
        images, losses = np.array(points).reshape(-1, 2).T
        noisy_line(axes, i, images, losses, key.removeprefix("loss/"))
    logarithmic(axes.yaxis, lambda value: number(value, 2))
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.legend()
    return figure


@matplotlib.rc_context(STYLE)
def validation_curves(rows: list[Row], task: str) -> Figure:
    """The main metric of `task` against images seen; trivial baselines are dashed lines."""
    rows = [row for row in rows if row["task"] == task]
    metric = main_metric(task, rows[0]["metrics"])
    assert metric is not None, "a validation row has a metric"
    figure, axes = new_axes(task, "images seen", measure(metric).axis)
    for i, ((_, data, nfe, members), line) in enumerate(validation_lines(rows)):
        images = [row["images_seen"] for row in line]
        values = [row["metrics"].get(metric, np.nan) for row in line]
        axes.plot(images, values, **look(i), markersize=5, label=f"{data}, {nfe} NFE x {members}")
    for i, (name, metrics) in enumerate(rows[-1].get("baselines", {}).items()):
        if metric in metrics:
            line = axes.axhline(metrics[metric], **REFERENCE)
            line.set(
                dashes=DASHES[i % len(DASHES)], label=f"{spoken(name)} {number(metrics[metric])}"
            )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    figure.legend(loc=BELOW, ncols=2)
    return figure


def usage_figures(rows: list[Row]) -> tuple[Figure | None, dict[str, Figure]]:
    """The curves of training rows and a map for each task; None and {} for a dense network.

    A router that sends all tokens to a few experts wastes the others; a router that sends each task
    to other experts has specialised.
    """
    keys = {key for row in rows for key in row if key.startswith(EXPERTS)}
    ordered = sorted(keys, key=house_order)
    usage = {key.removeprefix(EXPERTS): shares(rows, key) for key in ordered}
    if not usage:
        return None, {}
    highest = max(float(share[-1].max()) for _, share in usage.values())
    maps = {task: expert_map(share[-1], task, highest) for task, (_, share) in usage.items()}
    return imbalance_curves(usage), maps


def shares(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images seen "r" and shares "r layers experts" of the rows that have `key`."""
    rows = [row for row in rows if key in row]
    return np.array([row["images_seen"] for row in rows]), np.array([row[key] for row in rows])


def imbalance(share: np.ndarray) -> np.ndarray:
    """Shares "... layers experts" to "...": the busiest expert's load over an even one, mean over
    layers. 1 is even; as many as there are experts is every token to the same one."""
    return share.max(axis=-1).mean(axis=-1) * share.shape[-1]


@matplotlib.rc_context(STYLE)
def expert_map(share: np.ndarray, task: str, highest: float) -> Figure:
    """Shares "layers experts" as colours from 0 to `highest`, the first layer on top."""
    layers, experts = share.shape
    size = (COLUMN[0], min(6.0, 1.5 + 0.22 * layers))
    figure, axes = new_axes(task, "expert", "layer", size=size)
    edges = np.arange(experts + 1) + 0.5, np.arange(layers + 1) + 0.5
    shown = axes.pcolormesh(*edges, share, cmap="cividis", vmin=0, vmax=highest)
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    bare(axes)
    bar = figure.colorbar(shown, label="share of tokens")
    bar.outline.set_visible(False)
    bar.ax.axhline(1 / experts, color=PALETTE[1], linewidth=3)
    bar.ax.text(-0.25, 1 / experts, f"1/{experts}", ha="right", va="center", fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def imbalance_curves(usage: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """`imbalance` against images seen, one line per task: as measured faint, its trend bold."""
    y = "busiest expert / even load"
    figure, axes = new_axes("Imbalance of the experts", "images seen", y)
    for i, (task, (images, share)) in enumerate(usage.items()):
        noisy_line(axes, i, images, imbalance(share), task)
    axes.axhline(1, **REFERENCE, label="even")
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.legend()
    return figure


def trend(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a twelfth of all points (geometric, as losses are read)."""
    half = len(values) // 24
    logs = np.log(values)
    windows = [logs[max(0, i - half) : i + half + 1] for i in range(len(logs))]
    return np.exp([window.mean() for window in windows])


def new_axes(title: str, x: str, y: str, size: tuple[float, float] = COLUMN) -> tuple[Figure, Axes]:
    """An empty figure of `size` inches; call it, and what draws into it, within `STYLE`."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=wrapped(title), xlabel=x, ylabel=y)
    return figure, axes


def wrapped(title: str) -> str:
    """A title in lines that a column holds."""
    return "\n".join(wrap(title, TITLE))


def noisy_line(axes: Axes, i: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """Line `i`: as measured faint, its trend bold."""
    axes.plot(x, y, color=colour(i), linewidth=0.8, alpha=0.35)
    axes.plot(x, trend(y), color=colour(i), label=label)


def logarithmic(
    axis: XAxis | YAxis,
    write: Callable[[float], str],
    locator: Locator | None = None,
    base: float = 10,
) -> None:
    """Make an axis logarithmic and write its ticks out; without a locator at 1, 2, 5 and so on."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", base=base)
    axis.set_major_locator(locator or LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


def powers_of_two(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis from the least to the most of `values`, its ticks written out."""
    low, high = np.floor(np.log2(min(values))), np.ceil(np.log2(max(values)))
    stride = 1 + int(high - low) // 7
    ticks = FixedLocator([2.0**k for k in range(int(low), int(high) + 1, stride)])

    def tick(value: float) -> str:
        return short(round(value)) if value >= 1 else number(value, 2)

    logarithmic(axes.xaxis, tick, ticks, base=2)


def bare(axes: Axes) -> None:
    """Axes of a map: without grid, tick marks and frame."""
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def house_order(key: str) -> tuple[int, str]:
    """Sorts `loss/<task>` and the like: tasks as the house lists them, then the others by name."""
    known = list(scored_tasks())
    task = key.partition("/")[2]
    return (known.index(task) if task in known else len(known), key)


def short(value: float, _: int | None = None) -> str:
    """1500 as 1.5k, 2000000 as 2M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def colour(i: int) -> str:
    """The colour of line `i`."""
    return PALETTE[i % len(PALETTE)]


def look(i: int) -> dict[str, Any]:
    """Colour and marker of line `i`."""
    return {"color": colour(i), "marker": MARKERS[i % len(MARKERS)]}
