"""The figures of a run, in one style: curves, sweep heat map, Pareto plot.

Every function returns a matplotlib `Figure` that has never met pyplot (no global state, no window);
`to_svg` and `to_png` write it. Colours are those of Okabe and Ito (2008), told apart by readers
with any colour vision; line style and marker repeat what colour says. In SVG the ink is the text
colour of the surrounding page, so figures follow its light or dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from stepsight.evaluation.run_folder import Row, series
from stepsight.measures import HEADLINE, Measure, main_metric, measure, number
from stepsight.scaling.frontier import pareto

Curve = Callable[[np.ndarray], np.ndarray]

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
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def heat_map(rows: list[Row], title: str) -> Figure:
    """Model calls (NFE) against members, every cell with its value and the best one framed.

    `rows` are sweep rows of one metric and one sampler variant. Brighter is better.
    """
    nfes = sorted({row["nfe"] for row in rows})
    members = sorted({row["members"] for row in rows})
    kind = measure(rows[0]["metric"])
    cells = np.full((len(members), len(nfes)), np.nan)
    for row in rows:
        cells[members.index(row["members"]), nfes.index(row["nfe"])] = row["value"]

    size = (max(5.2, 1.0 + 0.7 * len(nfes)), 1.3 + 0.5 * len(members))
    figure, axes = new_axes(title, "model calls per member (NFE)", "members", size=size)
    axes.grid(False)
    shown = axes.pcolormesh(cells, cmap="cividis" if kind.higher_is_better else "cividis_r")
    for (y, x), value in np.ndenumerate(cells):
        if np.isfinite(value):
            shade = "white" if _luminance(np.asarray(shown.to_rgba(value))) < 0.45 else "black"
            axes.text(x + 0.5, y + 0.5, number(value), ha="center", va="center", color=shade)
    y, x = np.unravel_index(_best(cells, kind), cells.shape)
    axes.add_patch(_frame(int(x), int(y)))
    axes.set_xticks(np.arange(len(nfes)) + 0.5, [f"{nfe:g}" for nfe in nfes])
    axes.set_yticks(np.arange(len(members)) + 0.5, [f"{count:g}" for count in members])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(STYLE)
def pareto_plot(rows: list[Row], title: str, law: Curve | None = None) -> Figure:
    """The metric against total model calls (NFE x members): what each extra call buys.

    All settings are faint, the Pareto set is connected and carries its intervals. `law`, a fitted
    curve of total calls, is drawn over the range of the measured points and no further.
    """
    kind = measure(rows[0]["metric"])
    figure, axes = new_axes(
        title, "model calls per image (NFE x members)", kind.axis, size=(5.2, 3.7)
    )
    for i, count in enumerate(sorted({row["members"] for row in rows})):
        some = [row for row in rows if row["members"] == count]
        look = {"marker": MARKERS[i % len(MARKERS)], "color": colour(i), "alpha": 0.55, "s": 26}
        axes.scatter(*_points(some), **look, linewidths=0, label=_members(count))
    front = pareto_set(rows)
    calls, values = _points(front)
    bars = np.array([_bar(row) for row in front]).T
    axes.errorbar(calls, values, bars, color=INK, marker="o", ms=4, capsize=3, label="Pareto set")
    if law is not None:
        x = np.geomspace(*_range(row["total_calls"] for row in rows), 100)
        axes.plot(x, law(x), color=colour(1), linewidth=2.2, label="fitted law")
    axes.set_xscale("log", base=2)
    finish(axes)
    return figure


def pareto_set(rows: list[Row]) -> list[Row]:
    """The rows that no other row beats in both total calls and the metric, in order of calls."""
    sign = -1 if measure(rows[0]["metric"]).higher_is_better else 1
    calls, values = _points(rows)
    kept = pareto(calls, sign * np.array(values))
    return sorted((row for row, keep in zip(rows, kept) if keep), key=lambda r: r["total_calls"])


def fitted_law(fits: Mapping[str, Any], metric: str) -> Curve | None:
    """The law of total compute in the fits of one task, as a curve of total model calls.

    Only a fit whose verdict is `law` is one; of several, that with the highest R². The curve is
    y = E + A x^-a (E = 0 where the form has no floor) of the error, which for metrics where higher
    is better is 1 - value.
    """
    laws = [fit for fit in fits.get("compute", {}).values() if fit.get("verdict") == "law"]
    laws = [fit for fit in laws if {"A", "a"} <= fit["params"].keys() <= {"A", "a", "E"}]
    if not laws:
        return None
    params = max(laws, key=lambda fit: fit.get("r2") or 0.0)["params"]
    floor, amplitude, exponent = params.get("E", 0.0), params["A"], params["a"]
    sign, offset = (-1, 1) if measure(metric).higher_is_better else (1, 0)
    return lambda calls: offset + sign * (floor + amplitude * calls**-exponent)


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
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
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


def _count(value: float, _: int | None = None) -> str:
    """1500 as 1.5k, 2000000 as 2M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def colour(i: int) -> str:
    """The colour of line `i`."""
    return PALETTE[i % len(PALETTE)]


def _members(count: float) -> str:
    return f"{count:g} member{'s' if count != 1 else ''}"


def _points(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [row["total_calls"] for row in rows], [row["value"] for row in rows]


def _bar(row: Row) -> tuple[float, float]:
    """Lengths of the interval below and above the value; a missing interval has none."""
    below, above = row["value"] - row["lo"], row["hi"] - row["value"]
    return max(0.0, np.nan_to_num(below)), max(0.0, np.nan_to_num(above))


def _range(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _best(cells: np.ndarray, kind: Measure) -> np.intp:
    return np.nanargmax(cells) if kind.higher_is_better else np.nanargmin(cells)


def _luminance(rgba: np.ndarray) -> float:
    return float(np.dot(rgba[:3], (0.299, 0.587, 0.114)))


def _frame(x: int, y: int) -> Rectangle:
    return Rectangle((x, y), 1, 1, fill=False, edgecolor=PALETTE[1], linewidth=3, clip_on=False)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
