"""Figures of a report on scaling: what is drawn, not how it looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ladders import record

from stepsight.report import figures
from stepsight.report.scaling import figures as scaling_figures
from stepsight.report.scaling.figures import REACH, Mark
from stepsight.scaling.analysis.curves import IMAGES, PARAMS, Curve
from stepsight.scaling.analysis.laws import CurveLaws, laws_of
from stepsight.scaling.ladders.forecast import LOSS, Quantity

SIZES, AMOUNTS = (10_000, 100_000, 1_000_000), (100, 1_000, 10_000, 100_000)
MARK = Mark(1e14, 0.11, 0.10, 0.13, None)


@pytest.fixture(scope="module")
def found() -> CurveLaws:
    """A law of parameters and images with a percent of noise."""
    rng = np.random.default_rng(0)
    records, losses = [], []
    for n in SIZES:
        for d in AMOUNTS:
            losses.append((0.05 + 5 * n**-0.3 + 2 * d**-0.3) * np.exp(0.01 * rng.normal()))
            records.append(record(n, d, losses[-1], None, metric=LOSS))
    quantity = Quantity("depth", LOSS, True, "scenes", "", "", 0, 0)
    return laws_of(Curve(quantity, "", tuple(records), tuple(losses)), bootstrap=20)


def lines(axes) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.lines}


def test_what_is_fitted_is_solid_and_what_is_extrapolated_dashed(found):
    (axes,) = scaling_figures.compute_plot(found).axes
    solid, dashed = (lines(axes)[name] for name in ("fitted", "extrapolated"))
    assert not solid.is_dashed() and dashed.is_dashed()
    lo, hi = found.envelope.x.min(), found.envelope.x.max()
    assert solid.get_xdata()[[0, -1]] == pytest.approx([lo, hi])
    assert dashed.get_xdata()[[0, -1]] == pytest.approx([hi, REACH * hi])
    assert solid.get_ydata() == pytest.approx(found.envelope.fit.predict(solid.get_xdata()))
    (band,) = [one for one in axes.collections if one.get_label() == "90 % band"]
    reached = band.get_paths()[0].get_extents()
    assert reached.x0 == pytest.approx(lo) and reached.x1 == pytest.approx(REACH * hi)


def test_the_envelope_is_ringed_and_every_point_shown(found):
    shown = lines(scaling_figures.compute_plot(found).axes[0])
    assert sorted(shown["envelope"].get_xdata()) == sorted(found.envelope.x)
    sizes = [shown[f"{name} parameters"] for name in ("10k", "100k", "1M")]
    assert [len(line.get_xdata()) for line in sizes] == [4, 4, 4]


@pytest.mark.parametrize(
    "target, end",
    [(1e13, 1.2e13), (1e16, 0.999 * 30 * 6e11), (1e3, REACH * 6e11)],
)
def test_a_law_is_drawn_to_the_forecast_but_never_beyond_thirty_times(found, target, end):
    (axes,) = scaling_figures.compute_plot(found, [MARK._replace(x=target)]).axes
    assert lines(axes)["extrapolated"].get_xdata()[-1] == pytest.approx(end)


def test_a_forecast_has_its_interval_and_an_outcome_a_star(found):
    (axes,) = scaling_figures.compute_plot(found, [MARK]).axes
    (drawn,) = axes.containers
    (bar,) = drawn[2][0].get_segments()
    assert bar[:, 1] == pytest.approx([MARK.lo, MARK.hi])
    assert "outcome" not in lines(axes)
    (axes,) = scaling_figures.compute_plot(found, [MARK._replace(outcome=0.12)]).axes
    star = lines(axes)["outcome"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (MARK.x, 0.12)


@pytest.mark.parametrize("along, count, lawful", [(PARAMS, 4, 0), (IMAGES, 3, 1)])
def test_a_line_for_each_amount_or_size(found, along, count, lawful):
    """A law goes on beyond its points; of three there is a trend that ends with them."""
    (axes,) = scaling_figures.series_plot(found, along).axes
    styles = [line.get_linestyle() for line in axes.lines if line.get_linewidth() > 1]
    laws = [law for _, law in found.along(along) if law.fit.residuals]
    assert len(found.along(along)) == len(laws) == count
    drawn = [law.fit.verdict for law in laws].count("law")
    assert drawn >= lawful
    assert sorted(styles) == ["-"] * drawn + ["--"] * drawn + [":"] * (count - drawn)


def test_a_fit_that_is_denied_is_not_drawn_as_a_law(found):
    denied = replace(found.envelope.fit, verdict="improves but no law")
    laws = replace(found, envelope=replace(found.envelope, fit=denied))
    (axes,) = scaling_figures.compute_plot(laws, [MARK]).axes
    drawn = lines(axes)
    assert "trend, no law (improves but no law)" in drawn
    assert not {"fitted", "extrapolated"} & set(drawn)
    assert not [one for one in axes.collections if one.get_label() == "90 % band"]


def test_residuals_are_those_of_the_joint_law(found):
    left, right = scaling_figures.residual_plot(found.curve, found.joint).axes
    points = np.concatenate([np.asarray(one.get_offsets()) for one in left.collections])
    assert points[:, 1] == pytest.approx(found.joint.fit.predict(found.joint.x))
    assert points[:, 0] == pytest.approx(found.joint.y)
    rest = np.concatenate([np.asarray(one.get_offsets()) for one in right.collections])[:, 1]
    assert rest == pytest.approx(100 * (points[:, 0] / points[:, 1] - 1))


def test_a_relation_is_dashed_below_its_pairs_or_left_out():
    x, y = np.array([0.2, 0.4, 0.8]), np.array([0.1, 0.2, 0.4])
    (axes,) = scaling_figures.relation_plot("t", ("a", "b"), x, y, lambda at: at / 2).axes
    solid, dashed = (lines(axes)[name] for name in ("fitted", "extrapolated"))
    assert solid.get_xdata()[[0, -1]] == pytest.approx([0.2, 0.8]) and not solid.is_dashed()
    assert dashed.get_xdata()[[0, -1]] == pytest.approx([0.1, 0.2]) and dashed.is_dashed()
    (axes,) = scaling_figures.relation_plot("t", ("a", "b"), x, y, None).axes
    assert axes.lines[:] == []


def test_an_elbow_inside_of_the_losses_is_marked():
    loss = np.array([1.0, 2.0, 3.0] * 2)
    samples = np.repeat([10.0, 1000.0], 3)
    figure = scaling_figures.emergence_plot(
        "t", "score", (loss, samples, loss), lambda at, _: 0 * at, lambda d: {10: 0.5}.get(d, 2.5)
    )
    (axes,) = figure.axes
    assert axes.xaxis_inverted()
    assert [line.get_xdata()[0] for line in axes.lines if line.is_dashed()] == [2.5]


def test_compute_is_written_out_and_names_are_never_typeset(found):
    hostile = "<img src=x> $\\frac{1$"
    (axes,) = scaling_figures.compute_plot(found).axes
    assert axes.xaxis.get_major_formatter()(1e13, None) == "1e13"
    x = np.array([0.2, 0.4])
    figure = scaling_figures.relation_plot(hostile, (hostile, "b"), x, x, None)
    assert "<img src=x>" not in figures.to_svg(figure, hostile)


def test_points_stay_in_view_however_far_an_interval_runs(found):
    low, high = min(found.curve.errors), max(found.curve.errors)
    (axes,) = scaling_figures.compute_plot(found, [MARK._replace(lo=1e-9, value=0.2)]).axes
    bottom, top = axes.get_ylim()
    assert low * (low / high) < bottom < low and high < top < high * (high / low)
