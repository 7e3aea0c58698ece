"""The figures of a report on scaling, in the style of `figures`.

What was fitted is a solid line, what lies beyond the points a dashed one in its band. Both axes are
logarithmic. Colours and markers tell model sizes or amounts of data apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from stepsight.measures import number
from stepsight.report import figures
from stepsight.report.figures import DASHES, INK, MARKERS, STYLE, colour
from stepsight.scaling.analysis.curves import IMAGES, PARAMS, Array, Curve
from stepsight.scaling.analysis.laws import CurveLaws, Law
from stepsight.scaling.analysis.words import count
from stepsight.scaling.laws.fits import Fit
from stepsight.scaling.laws.fitted import MAX_EXTRAPOLATION

SIZE = (5.6, 4.0)
REACH = 10.0  # how far a law is drawn beyond its points where nothing was forecast
LEVEL = 0.9  # of the band
WIDTH = 44  # letters of a line of a label
STEPS = 48  # points of a drawn line
NARROW, MIDDLE = 2.5, 12.0  # ratios of the ends of an axis below which its ticks are even, denser
COMPUTE = "training FLOPs"
LABELS = {PARAMS: "active parameters", IMAGES: "images seen"}


class Mark(NamedTuple):
    """A forecast on a figure, and what came of it."""

    name: str
    x: float
    value: float
    lo: float
    hi: float
    outcome: float | None


@matplotlib.rc_context(STYLE)
def compute_plot(found: CurveLaws, marks: Sequence[Mark] = ()) -> Figure:
    """Errors against training compute: every point, the envelope and its law, the forecasts."""
    curve, law = found.curve, found.envelope
    figure, axes = figures.new_axes(curve.name, _compute_label(curve), curve.label, size=SIZE)
    _points(axes, curve, curve.compute, PARAMS, "parameters", line=curve.settles)
    if law is not None:
        ring: dict[str, Any] = {"marker": "o", "ms": 8, "mfc": "none", "mew": 1.0}
        order = np.argsort(law.x)
        axes.plot(law.x[order], law.y[order], color=INK, linewidth=0, **ring, label="envelope")
        _law(axes, law.fit, INK, max((mark.x for mark in marks), default=0.0), band=True)
    for mark in marks:
        _mark(axes, mark, first=mark is marks[0])
    drawn = [*curve.errors, *(mark.value for mark in marks)]
    ends = [end for mark in marks for end in (mark.lo, mark.hi)]
    _finish(figure, axes, drawn, ends, counted=False)
    return figure


@matplotlib.rc_context(STYLE)
def series_plot(found: CurveLaws, along: str, target: float = 0.0) -> Figure:
    """Errors over parameters with a line for each amount of images, or the other way round, drawn
    as far as a target, or ten times the points."""
    curve = found.curve
    fixed = IMAGES if along == PARAMS else PARAMS
    figure, axes = figures.new_axes(curve.name, LABELS[along], curve.label, size=SIZE)
    _points(
        axes,
        curve,
        curve.column(along),
        fixed,
        "images" if fixed == IMAGES else "parameters",
        line=False,
    )
    shades = _shades(curve, fixed)
    for one, law in found.along(along):
        if law is not None and law.fit.residuals:
            _law(axes, law.fit, shades[one.at][0], target, band=False, labelled=False)
    _finish(figure, axes, curve.errors)
    return figure


@matplotlib.rc_context(STYLE)
def residual_plot(curve: Curve, law: Law) -> Figure:
    """A law of parameters and images: predicted against measured, and what is left over compute."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title=f"{curve.name}: the joint law", xlabel="measured", ylabel="predicted")
    right.set(
        title="What it leaves over", xlabel=_compute_label(curve), ylabel="measured / law - 1 [%]"
    )
    predicted, rest = law.y / np.exp(law.fit.residuals), 100 * np.expm1(law.fit.residuals)
    sizes, compute = curve.column(PARAMS), curve.compute
    for at, (shade, marker) in _shades(curve, PARAMS).items():
        on = sizes == at
        look: dict[str, Any] = {"color": shade, "marker": marker, "s": 26, "linewidths": 0}
        left.scatter(law.y[on], predicted[on], **look, label=f"{count(at)} parameters")
        right.scatter(compute[on], rest[on], **look)
    ends = min(law.y.min(), predicted.min()), max(law.y.max(), predicted.max())
    left.plot(ends, ends, color=INK, linewidth=1.0, alpha=0.75, dashes=DASHES[0])
    right.axhline(0.0, color=INK, linewidth=1.0, alpha=0.75, dashes=DASHES[0])
    _powers(right)
    for scale, values in ((left.xaxis, law.y), (left.yaxis, predicted)):
        _ticks(left, scale, values)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))
    return figure


@matplotlib.rc_context(STYLE)
def relation_plot(
    title: str,
    labels: tuple[str, str],
    x: Array,
    y: Array,
    line: Callable[[Array], Array] | None,
) -> Figure:
    """Pairs of two losses or errors, and the relation fitted to them if there is one: solid within
    the pairs, dashed below them, half as far again."""
    x_label, y_label = ("\n".join(wrap(label, WIDTH)) for label in labels)
    figure, axes = figures.new_axes(title, x_label, y_label, size=SIZE)
    axes.scatter(x, y, color=colour(0), s=28, linewidths=0, alpha=0.8, label="measured")
    if line is not None:
        inside = np.geomspace(x.min(), x.max(), STEPS)
        below = np.geomspace(x.min() * (x.min() / x.max()) ** 0.5, x.min(), STEPS)
        _line(axes, inside, line(inside), INK, True, "fitted")
        _line(axes, below, line(below), INK, False, "extrapolated")
    _finish(figure, axes, y)
    _ticks(axes, axes.xaxis, axes.get_xlim())
    return figure


@matplotlib.rc_context(STYLE)
def emergence_plot(
    title: str,
    y_label: str,
    columns: tuple[Array, Array, Array],
    line: Callable[[Array, float], Array],
    elbow: Callable[[float], float],
) -> Figure:
    """A thresholded metric against the loss of the pretrained model, which falls to the right: a
    curve and an elbow for each amount of fine-tuning samples. columns: loss, samples, metric."""
    figure, axes = figures.new_axes(title, "loss of the pretrained model", y_label, size=SIZE)
    loss, samples, values = columns
    inside = np.linspace(loss.min(), loss.max(), 4 * STEPS)
    for i, amount in enumerate(np.unique(samples)):
        on = samples == amount
        look: dict[str, Any] = {"color": colour(i), "marker": MARKERS[i % len(MARKERS)]}
        axes.scatter(
            loss[on], values[on], **look, s=28, linewidths=0, label=f"{count(amount)} samples"
        )
        axes.plot(inside, line(inside, amount), color=colour(i), linewidth=1.4)
        place = elbow(amount)
        if loss.min() <= place <= loss.max():
            axes.axvline(place, color=colour(i), linewidth=0.9, alpha=0.7, dashes=DASHES[0])
    axes.invert_xaxis()
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _points(axes: Axes, curve: Curve, x: Array, by: str, unit: str, line: bool) -> None:
    """All points, told apart by `by`; those of one kind are joined."""
    other, y = curve.column(by), np.array(curve.errors)
    for at, (shade, marker) in _shades(curve, by).items():
        on = (other == at) & (x > 0)
        order = np.argsort(x[on], kind="stable")
        look: dict[str, Any] = {"color": shade, "marker": marker, "ms": 5, "mew": 0}
        width = 0.9 if line else 0.0
        xs, ys = x[on][order], y[on][order]
        axes.plot(xs, ys, **look, linewidth=width, alpha=0.8, label=f"{count(at)} {unit}")


def _compute_label(curve: Curve) -> str:
    inherited = any(one.inherited_flops for one in curve.records)
    return f"{COMPUTE}, pretraining included" if inherited else COMPUTE


def _shades(curve: Curve, by: str) -> dict[float, tuple[str, str]]:
    """Colour and marker of each size or amount, in order."""
    values = np.unique(curve.column(by)).tolist()
    return {at: (colour(i), MARKERS[i % len(MARKERS)]) for i, at in enumerate(values)}


def _law(
    axes: Axes, fit: Fit, shade: str, target: float, band: bool, labelled: bool = True
) -> None:
    """The law within its points and beyond them, as far as it may be extrapolated."""
    if not fit.residuals:  # the points did not determine it
        return
    ((lo, hi),) = fit.ranges.values()
    end = min(1.2 * target if target > hi else REACH * hi, 0.999 * MAX_EXTRAPOLATION * hi)
    inside, beyond = np.geomspace(lo, hi, STEPS), np.geomspace(hi, end, STEPS)[1:]
    names = ("fitted", "extrapolated") if labelled else ("", "")
    _line(axes, inside, fit.predict(inside), shade, solid=True, label=names[0])
    _line(axes, np.append(hi, beyond), fit.predict(np.append(hi, beyond)), shade, False, names[1])
    if band and fit.draws:
        every = np.append(inside, beyond)
        said = [fit.forecast(x, LEVEL) for x in every]
        ends = [one.lo for one in said], [one.hi for one in said]
        axes.fill_between(every, *ends, color=shade, alpha=0.1, linewidth=0, label="90 % band")


def _line(axes: Axes, x: Array, y: Array, shade: str, solid: bool, label: str) -> None:
    (drawn,) = axes.plot(x, y, color=shade, linewidth=1.5, label=label or None)
    if not solid:
        drawn.set(dashes=DASHES[0])


def _mark(axes: Axes, mark: Mark, first: bool) -> None:
    """A forecast with its interval, and beside it the outcome."""
    spread = np.abs(np.array([[mark.lo], [mark.hi]]) - mark.value)
    look: dict[str, Any] = {"fmt": "D", "ms": 6, "mfc": "none", "capsize": 3, "color": colour(1)}
    axes.errorbar([mark.x], [mark.value], spread, **look, label="forecast" if first else None)
    if mark.outcome is not None:
        axes.plot([mark.x], [mark.outcome], "*", color=colour(1), ms=11, mew=0, label="outcome")


def _finish(
    figure: Figure,
    axes: Axes,
    drawn: Iterable[float],
    also: Iterable[float] = (),
    counted: bool = True,
) -> None:
    """Logarithmic axes, x of counts or of compute, a legend, and what is drawn in view. Lines
    and what is drawn also, ends of intervals, get half as much room again at most."""
    if not counted:
        _powers(axes)
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    values = np.array([value for value in drawn if np.isfinite(value) and value > 0])
    low, high = values.min(), values.max()
    room, reach = max((high / low) ** 0.08, 1.01), max((high / low) ** 0.5, 1.1)
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    ends = [low, high, *(end for line in lines if line.size for end in (line.min(), line.max()))]
    ends = np.clip([*ends, *(end for end in also if np.isfinite(end))], low / reach, high * reach)
    axes.set_ylim(ends.min() / room, ends.max() * room)
    _ticks(axes, axes.yaxis, axes.get_ylim())
    handles, labels = _unique(axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def _unique(axes: Axes) -> tuple[list[Any], list[str]]:
    """Handles and labels, each once."""
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(labels, handles))
    return list(known.values()), list(known)


def _ticks(axes: Axes, scale: Any, values: Sequence[float] | Array) -> None:
    """A logarithmic axis with its ticks written out; even ones where its ends are close."""
    which, ratio = "x" if scale is axes.xaxis else "y", max(values) / min(values)
    getattr(axes, f"set_{which}scale")("log")
    dense = (1, 1.5, 2, 3, 4, 5, 7) if ratio < MIDDLE else (1, 2, 5)
    scale.set_major_locator(MaxNLocator(5) if ratio < NARROW else LogLocator(subs=dense))
    scale.set_major_formatter(
        FuncFormatter(lambda value, _: number(value, 3 if ratio < NARROW else 2))
    )
    scale.set_minor_locator(NullLocator())
    scale.set_minor_formatter(NullFormatter())


def _powers(axes: Axes) -> None:
    """A logarithmic x axis of compute, with ticks such as 1e13."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0e}".replace("e+", "e"))
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
