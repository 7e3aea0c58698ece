"""The figures of a report on scaling, in the style of `figures`.

A law is a solid line within its points, beyond them a dashed one in its band. A fit that is no law
is a dotted trend through its points and ends with them. Both axes are logarithmic. Colours and
markers tell model sizes or amounts of data apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from stepsight.measures import measure, number
from stepsight.report import figures
from stepsight.report.figures import BELOW, COLUMN, DASHES, INK, REFERENCE, STYLE, colour, look
from stepsight.report.scaling.contents import Analysis, Forecasts
from stepsight.scaling.analysis.curves import IMAGES, PARAMS, Curve
from stepsight.scaling.analysis.emergence import Emergence
from stepsight.scaling.analysis.laws import WORDS, CurveLaws, Law
from stepsight.scaling.analysis.relations import Panel
from stepsight.scaling.analysis.words import count, flops
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.laws.fits import Fit
from stepsight.scaling.laws.fitted import MAX_EXTRAPOLATION

REACH = 10.0  # how far a law is drawn beyond its points where nothing was forecast
LEVEL = 0.9  # of the band
WIDTH = 44  # letters of a line of a label
STEPS = 48  # points of a drawn line
# Ratios of the ends of an axis: below these its ticks are even, or denser; above, powers of ten.
NARROW, MIDDLE, WIDE = 2.5, 12.0, 150.0
COMPUTE = "training FLOPs"
LABELS = {PARAMS: "active parameters", IMAGES: "images seen"}

Figures = dict[str, Figure]  # by the names of their files


class Mark(NamedTuple):
    """A forecast on a figure, and what came of it."""

    x: float
    value: float
    lo: float
    hi: float
    outcome: float | None


def draw(analysis: Analysis) -> Figures:
    """Compute, series and residuals of the headline, then the panels and elbows."""
    drawn: Figures = {}
    for laws in analysis.headline:
        name, forecasts = _slug(laws.curve.name), _latest(analysis.forecasts, laws.curve)
        drawn[f"compute-{name}"] = compute_plot(laws, _marks(laws, forecasts))
        for along, word in WORDS.items():
            if laws.along(along):
                target = max((getattr(forecast, along) for forecast, _ in forecasts), default=0)
                drawn[f"along-{word}-{name}"] = series_plot(laws, along, target)
        if laws.joint is not None and laws.joint.fit.residuals:
            drawn[f"residuals-{name}"] = residual_plot(laws.curve, laws.joint)
    for i, panel in enumerate(analysis.relations):
        line = panel.relation.predict if panel.relation.verdict == "law" else None
        labels = panel.pairing.x, panel.pairing.y
        drawn[panel_file(panel, i)] = relation_plot(panel.title, labels, panel.x, panel.y, line)
    for elbow in analysis.emergences:
        columns = elbow.columns["loss"], elbow.columns["samples"], elbow.columns["value"]
        axis, fit = measure(elbow.quantity.metric).axis, elbow.fit
        figure = emergence_plot(elbow.title, axis, columns, fit.predict, fit.elbow)
        drawn[elbow_file(elbow)] = figure
    return drawn


def panel_file(panel: Panel, i: int) -> str:
    return f"{panel.name}-{i + 1}"


def elbow_file(elbow: Emergence) -> str:
    return f"emergence-{_slug(elbow.name)}"


def _latest(forecasts: Forecasts, curve: Curve) -> Forecasts:
    """The latest forecast of each run of a curve, with an outcome if there is any."""
    ordered = sorted(forecasts, key=lambda pair: pair[1] is not None)
    pairs = [pair for pair in ordered if pair[0].quantity == curve.quantity]
    return list({(pair[0].params_active, pair[0].images_seen): pair for pair in pairs}.values())


def _marks(laws: CurveLaws, forecasts: Forecasts) -> list[Mark]:
    """Forecasts in a figure of errors over compute, which is that of the points by parameters x
    images."""
    curve = laws.curve
    rate = float(np.median(curve.compute / (curve.column(PARAMS) * curve.column(IMAGES))))
    marks = []
    for forecast, scored in forecasts:
        compute = rate * forecast.params_active * forecast.images_seen
        value, lo, hi = forecast.value, forecast.lo, forecast.hi
        outcome = scored.outcome if scored else None
        if not forecast.lower_is_better:
            value, lo, hi = 1 - value, 1 - hi, 1 - lo
            outcome = None if outcome is None else 1 - outcome
        marks.append(Mark(compute, value, lo, hi, outcome))
    return marks


def _slug(name: str) -> str:
    """Safe as a part of a file's name."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower().replace("δ", "delta")).strip("-")


@matplotlib.rc_context(STYLE)
def compute_plot(laws: CurveLaws, marks: Sequence[Mark] = ()) -> Figure:
    """Errors against training compute: every point, the envelope and its law, the forecasts."""
    curve, law = laws.curve, laws.envelope
    figure, axes = figures.new_axes(curve.name, _compute_label(curve), curve.label)
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
def series_plot(laws: CurveLaws, along: str, target: float = 0.0) -> Figure:
    """Errors over parameters with a line for each amount of images, or the other way round, drawn
    as far as a target, or ten times the points."""
    curve = laws.curve
    fixed, unit = (IMAGES, "images") if along == PARAMS else (PARAMS, "parameters")
    figure, axes = figures.new_axes(curve.name, LABELS[along], curve.label)
    _points(axes, curve, curve.column(along), fixed, unit, line=False)
    looks = _looks(curve, fixed)
    for series, law in laws.along(along):
        if law is not None and law.fit.residuals:
            shade = looks[series.at]["color"]
            _law(axes, law.fit, shade, target, band=False, labelled=False)
    _finish(figure, axes, curve.errors)
    return figure


@matplotlib.rc_context(STYLE)
def residual_plot(curve: Curve, law: Law) -> Figure:
    """A law of parameters and images: predicted against measured, and what is left over compute."""
    figure = Figure(figsize=(COLUMN[0], 2 * COLUMN[1]), layout="constrained")
    left, right = figure.subplots(2, 1)
    title = figures.wrapped(f"{curve.name}: the joint law")
    left.set(title=title, xlabel="measured", ylabel="predicted")
    right.set(title="Residuals", xlabel=_compute_label(curve), ylabel="measured / law - 1 [%]")
    predicted, rest = law.y / np.exp(law.fit.residuals), 100 * np.expm1(law.fit.residuals)
    sizes, compute = curve.column(PARAMS), curve.compute
    for at, style in _looks(curve, PARAMS).items():
        on, style = sizes == at, style | {"s": 26, "linewidths": 0}
        left.scatter(law.y[on], predicted[on], **style, label=f"{count(at)} parameters")
        right.scatter(compute[on], rest[on], **style)
    ends = min(law.y.min(), predicted.min()), max(law.y.max(), predicted.max())
    left.plot(ends, ends, **REFERENCE)
    right.axhline(0.0, **REFERENCE)
    figures.logarithmic(right.xaxis, power, LogLocator())
    ticks(left.xaxis, law.y)
    ticks(left.yaxis, predicted)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc=BELOW, ncols=min(2, len(labels)))
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
    figure, axes = figures.new_axes(title, x_label, y_label)
    axes.scatter(x, y, color=colour(0), s=28, linewidths=0, alpha=0.8, label="measured")
    if line is not None:
        inside = np.geomspace(x.min(), x.max(), STEPS)
        below = np.geomspace(x.min() * (x.min() / x.max()) ** 0.5, x.min(), STEPS)
        _line(axes, inside, line(inside), INK, True, "fitted")
        _line(axes, below, line(below), INK, False, "extrapolated")
    _finish(figure, axes, y)
    ticks(axes.xaxis, axes.get_xlim())
    return figure


@matplotlib.rc_context(STYLE)
def emergence_plot(
    title: str,
    y_label: str,
    columns: tuple[Array, Array, Array],
    line: Callable[[Array, float], Array],
    elbow: Callable[[float], ArrayLike],
) -> Figure:
    """A thresholded metric against the loss of the pretrained model, which falls to the right: a
    curve and an elbow for each amount of fine-tuning samples. columns: loss, samples, metric."""
    figure, axes = figures.new_axes(title, "loss of the pretrained model", y_label)
    loss, samples, values = columns
    inside = np.linspace(loss.min(), loss.max(), 4 * STEPS)
    for i, amount in enumerate(np.unique(samples)):
        on, label = samples == amount, f"{count(amount)} samples"
        axes.scatter(loss[on], values[on], **look(i), s=28, linewidths=0, label=label)
        axes.plot(inside, line(inside, amount), color=colour(i), linewidth=1.4)
        place = float(np.asarray(elbow(amount)))
        if loss.min() <= place <= loss.max():
            axes.axvline(place, color=colour(i), linewidth=0.9, alpha=0.7, dashes=DASHES[0])
    axes.invert_xaxis()
    figure.legend(loc=BELOW, ncols=2)
    return figure


def _points(axes: Axes, curve: Curve, x: Array, by: str, unit: str, line: bool) -> None:
    """All points, told apart by `by`; those of one kind are joined."""
    other, y = curve.column(by), np.array(curve.errors)
    for at, style in _looks(curve, by).items():
        on = (other == at) & (x > 0)
        order = np.argsort(x[on], kind="stable")
        style |= {"ms": 5, "mew": 0, "linewidth": 0.9 if line else 0.0, "alpha": 0.8}
        axes.plot(x[on][order], y[on][order], **style, label=f"{count(at)} {unit}")


def _compute_label(curve: Curve) -> str:
    inherited = any(record.inherited_flops for record in curve.records)
    return f"{COMPUTE}, pretraining included" if inherited else COMPUTE


def _looks(curve: Curve, by: str) -> dict[float, dict[str, Any]]:
    """Colour and marker of each size or amount, in order."""
    return {at: look(i) for i, at in enumerate(np.unique(curve.column(by)).tolist())}


def _law(
    axes: Axes, fit: Fit, shade: str, target: float, band: bool, labelled: bool = True
) -> None:
    """The law within its points and beyond them, as far as it may be extrapolated."""
    if not fit.residuals:  # the points did not determine it
        return
    ((lo, hi),) = fit.ranges.values()
    end = min(1.2 * target if target > hi else REACH * hi, 0.999 * MAX_EXTRAPOLATION * hi)
    inside, beyond = np.geomspace(lo, hi, STEPS), np.geomspace(hi, end, STEPS)[1:]
    if fit.verdict != "law":
        trend: dict[str, Any] = {"linewidth": 1.2, "linestyle": ":", "color": shade}
        label = f"trend, no law ({fit.verdict})" if labelled else None
        axes.plot(inside, fit.predict(inside), **trend, label=label)
        return
    names = ("fitted", "extrapolated") if labelled else ("", "")
    _line(axes, inside, fit.predict(inside), shade, solid=True, label=names[0])
    _line(axes, np.append(hi, beyond), fit.predict(np.append(hi, beyond)), shade, False, names[1])
    if band and fit.outlook is not None:
        every = np.append(inside, beyond)
        predicted = [fit.forecast(x, LEVEL) for x in every]
        ends = [point.lo for point in predicted], [point.hi for point in predicted]
        axes.fill_between(every, *ends, color=shade, alpha=0.1, linewidth=0, label="90 % band")


def _line(axes: Axes, x: Array, y: Array, shade: str, solid: bool, label: str) -> None:
    dashes: dict[str, Any] = {} if solid else {"dashes": DASHES[0]}
    axes.plot(x, y, color=shade, linewidth=1.5, label=label or None, **dashes)


def _mark(axes: Axes, mark: Mark, first: bool) -> None:
    """A forecast with its interval, and beside it the outcome."""
    spread = np.abs(np.array([[mark.lo], [mark.hi]]) - mark.value)
    style: dict[str, Any] = {"fmt": "D", "ms": 6, "mfc": "none", "capsize": 3, "color": colour(1)}
    axes.errorbar([mark.x], [mark.value], spread, **style, label="forecast" if first else None)
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
    if counted:
        left, right = axes.get_xlim()
        wide = LogLocator() if right > WIDE * left > 0 else None
        figures.logarithmic(axes.xaxis, count, wide)
    else:
        figures.logarithmic(axes.xaxis, power, LogLocator())
    values = np.array([value for value in drawn if np.isfinite(value) and value > 0])
    low, high = values.min(), values.max()
    room, reach = max((high / low) ** 0.08, 1.01), max((high / low) ** 0.5, 1.1)
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    ends = [low, high, *(end for line in lines if line.size for end in (line.min(), line.max()))]
    ends = np.clip([*ends, *(end for end in also if np.isfinite(end))], low / reach, high * reach)
    axes.set_ylim(ends.min() / room, ends.max() * room)
    ticks(axes.yaxis, axes.get_ylim())
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels())))  # each once
    figure.legend(by_label.values(), by_label, loc=BELOW, ncols=min(2, len(by_label)))


def ticks(axis: XAxis | YAxis, values: Sequence[float] | Array, compute: bool = False) -> None:
    """A logarithmic axis with even ticks where its ends are close; compute is written as powers."""
    ratio = max(values) / min(values)
    if compute and ratio > WIDE:
        figures.logarithmic(axis, power, LogLocator(numticks=6))
        return
    middle = (1, 2, 5) if compute else (1, 1.5, 2, 3, 4, 5, 7)
    dense = middle if ratio < MIDDLE else (1, 3) if compute else (1, 2, 5)
    locator = MaxNLocator(4) if ratio < NARROW else LogLocator(subs=dense)
    digits = 3 if ratio < NARROW else 2
    figures.logarithmic(axis, lambda v: flops(v) if compute else number(v, digits), locator)


def power(value: float) -> str:
    """Compute at a tick, such as 1e13."""
    return f"{value:.0e}".replace("e+", "e")
