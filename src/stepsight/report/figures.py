"""The figures of a run, in one style: training and validation curves, and what others build on.

Every function returns a matplotlib `Figure` that has never met pyplot (no global state, no window);
`to_svg` and `to_png` write it. Colours are those of Okabe and Ito (2008), told apart by readers
with any colour vision; line style and marker repeat what colour says. In SVG the ink is the text
colour of the surrounding page, so figures follow its light or dark theme.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from stepsight.measures import HEADLINE, main_metric, measure, number
from stepsight.report.run_folder import Row, series

INK = "#22262b"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2))
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
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element to put into a page; `title` is for readers who cannot see.

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
    return svg.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1)


def to_png(figure: Figure, path: Path) -> Path:
    """Write the figure on white at 150 dots an inch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
    return path


@matplotlib.rc_context(STYLE)
def training_curves(rows: list[Row]) -> Figure:
    """Training loss against images seen, one line a task: raw values faint, their trend bold."""
    keys = {key for row in rows for key in row if key.startswith("loss/")} or {"loss"}
    figure, axes = new_axes("Training loss", "images seen", "loss (weighted mean squared error)")
    for i, key in enumerate(sorted(keys, key=house_order)):
        points = [(row["images_seen"], row[key]) for row in rows if row.get(key, 0) > 0]
        images, losses = np.array(points).reshape(-1, 2).T
        axes.plot(images, losses, color=colour(i), linewidth=0.8, alpha=0.35)
        axes.plot(images, trend(losses), color=colour(i), label=key.removeprefix("loss/"))
    axes.set_yscale("log")
    finish(axes, log_y=True)
    return figure


@matplotlib.rc_context(STYLE)
def validation_curves(rows: list[Row], task: str) -> Figure:
    """The main metric of `task` against images seen; trivial baselines are dashed lines."""
    rows = [row for row in rows if row["task"] == task]
    metric = main_metric(task, rows[0]["metrics"])
    assert metric is not None, "a validation row has a metric"
    figure, axes = new_axes(task, "images seen", measure(metric).axis, size=(4.8, 3.6))
    for i, ((data, nfe, members), line) in enumerate(series(rows).items()):
        axes.plot(
            [row["images_seen"] for row in line],
            [row["metrics"].get(metric, np.nan) for row in line],
            color=colour(i),
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            label=f"{data}, {nfe} NFE x {members}",
        )
    for i, (name, values) in enumerate(rows[-1].get("baselines", {}).items()):
        if metric in values:
            line = axes.axhline(values[metric], color=INK, linewidth=1.1, alpha=0.75)
            line.set(dashes=DASHES[i % len(DASHES)], label=f"{name} {number(values[metric])}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def trend(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a twelfth of all points (geometric, as losses are read)."""
    half = len(values) // 24
    logs = np.log(values)
    windows = [logs[max(0, i - half) : i + half + 1] for i in range(len(logs))]
    return np.exp([window.mean() for window in windows])


def new_axes(
    title: str, x: str, y: str, size: tuple[float, float] = (8.6, 3.4)
) -> tuple[Figure, Axes]:
    """An empty figure of `size` inches; call it, and what draws into it, within `STYLE`."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def finish(axes: Axes, log_y: bool = False) -> None:
    """Short numbers on the axes, and the legend."""
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    if log_y:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 2)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def house_order(key: str) -> tuple[int, str]:
    """Sorts `loss/<task>` and the like: tasks as the house lists them, then the others by name."""
    known = list(HEADLINE)
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


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
