"""The figures of the page of a study, in the style of `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepsight.report import figures
from stepsight.report.figures import BELOW, DASHES, INK, STYLE, colour, look
from stepsight.report.scaling.figures import ticks
from stepsight.report.study.contents import StudyFigure, StudyPoint, by_number
from stepsight.scaling.analysis.words import clean

SHORT = 9  # letters of names of which a line of the legend holds four
# Figures whose points differ in training. Those of one model were scored on the same images, and
# differ by far less than their intervals over images say.
COMPARED = ("law", "ends")
NEAR = 1.25  # how far beyond the points the ends of intervals widen an axis
NAMED = 6  # points of a frontier that carry their settings


@matplotlib.rc_context(STYLE)
def draw(figure: StudyFigure, places: Mapping[str, int] | None = None) -> Figure:
    """Every point by the line it belongs to, with its interval where that says if lines differ;
    the envelope's law dashed where it is a clean one, or of a budget the frontier.

    places: of lines in the palette, where figures share them (`places_of`); left out, their order.
    """
    kind = figure.kind
    drawn, axes = figures.new_axes("", kind.x, f"{figure.task} {figure.label}".strip())
    joined = kind.says != "front"
    places = places or places_of([figure])
    for line, points in figure.lines.items():
        i = places[line]
        x, y = [point.x for point in points], [point.y for point in points]
        many: dict[str, Any] = {"ms": 3.2, "mew": 0} if len(x) > 20 else {"ms": 5, "mew": 0}
        axes.plot(x, y, **look(i), **many, linewidth=1.2 if joined else 0, label=line or "measured")
        if kind.says in COMPARED:
            _intervals(axes, points, colour(i))
    if kind.says == "front":
        _frontier(axes, figure.envelope)
    elif figure.law is not None and clean(figure.law):
        ((low, high),) = figure.law.ranges.values()
        x = np.geomspace(low, high, 48)
        style: dict[str, Any] = {"color": INK, "linewidth": 1.1, "dashes": DASHES[0]}
        axes.plot(x, figure.law.predict(x), **style, label="law")
    _finish(drawn, axes, figure.points, ends=kind.says in COMPARED)
    return drawn


def places_of(shown: Sequence[StudyFigure]) -> dict[str, int]:
    """The place of every line in the palette, the same in all figures: in order among those that
    it stands beside somewhere, numbers in names by their value."""
    groups: list[set[str]] = []
    for figure in shown:
        lines = set(figure.lines)
        touching = [group for group in groups if group & lines]
        groups = [group for group in groups if group not in touching]
        groups.append(lines.union(*touching))
    return {line: i for group in groups for i, line in enumerate(sorted(group, key=by_number))}


def _intervals(axes: Axes, points: Sequence[StudyPoint], shade: str) -> None:
    known = [point for point in points if np.isfinite([point.lo, point.hi]).all()]
    if known:
        x = [point.x for point in known]
        axes.vlines(x, [p.lo for p in known], [p.hi for p in known], color=shade, lw=1, alpha=0.5)


def _frontier(axes: Axes, front: Sequence[StudyPoint]) -> None:
    """The frontier, and the settings of some points on it, the first and the last among them."""
    style: dict[str, Any] = {"marker": "o", "ms": 7.5, "mfc": "none", "mew": 1.1}
    x, y = [point.x for point in front], [point.y for point in front]
    axes.plot(x, y, color=INK, linewidth=1.2, **style, label="frontier")
    shown = np.unique(np.linspace(0, len(front) - 1, min(NAMED, len(front))).round()).astype(int)
    for i in shown.tolist():
        where = {"xytext": (4, 5), "textcoords": "offset points"}
        axes.annotate(front[i].at.partition(" ")[0], (front[i].x, front[i].y), **where, fontsize=9)


def _finish(figure: Figure, axes: Axes, points: Sequence[StudyPoint], ends: bool) -> None:
    """Logarithmic axes with all points in view, and of the ends of their intervals what is near;
    the legend below."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    low, high = min(ys) / NEAR, max(ys) * NEAR
    near = [end for p in points for end in (p.lo, p.hi) if ends and low < end < high]
    for axis, values in ((axes.xaxis, xs), (axes.yaxis, [*ys, *near])):
        low, high = min(values), max(values)
        room = max((high / low) ** 0.07, 1.02)
        getattr(axes, f"set_{axis.axis_name}lim")(low / room, high * room)
        ticks(axis, (low, high), compute=axis is axes.xaxis)
    handles, labels = axes.get_legend_handles_labels()
    columns = min(4 if max(map(len, labels)) < SHORT else 2, len(labels))
    figure.legend(handles, labels, loc=BELOW, ncols=columns, columnspacing=1.2)
