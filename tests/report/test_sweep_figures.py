"""Figures of a sweep: what is drawn, not how it looks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from stepsight.report import figures
from stepsight.report.sweep import figures as sweep_figures
from stepsight.report.sweep.folder import told_apart
from stepsight.scaling.sampling.sweeps import Cell

HOSTILE = "<img src=x onerror=1> $\\frac{1$ & co"
SHARED: dict[str, Any] = {"task": "depth", "spacing": "trailing", "schedule": "cosine"}


def cell(nfe, members, value, metric="abs_rel", width=0.01, sampler="ddim", **more):
    calls = nfe * members
    cost = {"gflop_per_image": 0.3 * calls, "ms_per_image": 5.0 * calls, "peak_gb": 1.0}
    ends = {"lo": value - width, "hi": value + width}
    return Cell(
        nfe=nfe,
        members=members,
        total_calls=calls,
        metric=metric,
        value=value,
        sampler=sampler,
        **SHARED,
        **cost,
        **ends,
        **more,
    )


def grid(metric="abs_rel", sampler="ddim", shift=0.0):
    return [
        cell(n, m, 0.2 - 0.01 * m + 0.001 * n + shift, metric, sampler=sampler)
        for n in (1, 2, 4)
        for m in (1, 2, 4)
    ]


def texts(figure) -> list[str]:
    root = ET.fromstring(re.sub(r"xlink:", "", figures.to_svg(figure, "x")))
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text]


def offsets(axes) -> list[tuple[str, int]]:
    return [(dots.get_label(), len(dots.get_offsets())) for dots in axes.collections[:-1]]


@pytest.mark.parametrize("metric, best", [("abs_rel", (1, 4)), ("iou", (4, 1))])
def test_the_heat_map_says_every_value_and_frames_the_best(metric, best):
    axes = sweep_figures.heat_map(grid(metric), "x").axes[0]
    assert len(axes.texts) == 9
    (frame,) = axes.patches
    settings = [1, 2, 4]
    assert (settings[int(frame.get_x())], settings[int(frame.get_y())]) == best


def test_the_heat_map_leaves_gaps_where_nothing_was_measured():
    assert len(sweep_figures.heat_map(grid()[:-1], "x").axes[0].texts) == 8


def test_the_pareto_set_is_connected_and_says_its_settings():
    axes = sweep_figures.pareto_plot(grid(), "x").axes[0]
    (front,) = axes.lines
    assert front.get_xdata().tolist() == [1, 2, 4]
    assert front.get_ydata().tolist() == pytest.approx([0.191, 0.181, 0.161])
    assert [text.get_text() for text in axes.texts] == ["1x1", "1x2", "1x4"]
    assert axes.get_xscale() == "log" and "model calls" in axes.get_xlabel()


def test_one_variant_is_told_by_members_and_several_by_what_differs():
    axes = sweep_figures.pareto_plot(grid(), "x").axes[0]
    assert offsets(axes) == [("1 member", 3), ("2 members", 3), ("4 members", 3)]
    both = grid() + grid(sampler="heun", shift=-0.05)
    axes = sweep_figures.pareto_plot(both, "x").axes[0]
    assert offsets(axes) == [("ddim", 9), ("heun", 9)]
    one, other = (cell(1, 1, 0.2, checkpoint=name, size="64x64") for name in ("runs/a", "runs/b"))
    axes = sweep_figures.pareto_plot([one, other], "x").axes[0]
    assert offsets(axes) == [("a", 1), ("b", 1)]


def test_compute_may_be_counted_in_flops():
    axes = sweep_figures.pareto_plot(grid(), "x", cost="gflop").axes[0]
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([0.3, 0.6, 1.2])
    assert axes.get_xlabel() == "GFLOP per image"


def test_intervals_wider_than_the_differences_do_not_hide_them():
    wide = [cell(n, m, 0.2 - 0.01 * m, width=0.5) for n in (1, 2) for m in (1, 2)]
    bottom, top = sweep_figures.pareto_plot(wide, "x").axes[0].get_ylim()
    assert (bottom, top) == pytest.approx((0.17, 0.20))


def test_a_single_point_is_a_figure_too():
    figures.to_svg(sweep_figures.pareto_plot([cell(4, 1, 0.2, width=float("nan"))], "x"), "x")


def test_names_are_shown_as_they_are_and_never_typeset():
    assert HOSTILE in texts(sweep_figures.pareto_plot(grid(), HOSTILE))


def test_checkpoints_of_one_name_are_told_by_their_paths():
    one, other = (cell(1, 1, 0.2, checkpoint=f"{name}/last").family for name in ("x", "y"))
    assert told_apart([one, other]) == {one: "x/last", other: "y/last"}


def test_a_panel_has_a_line_for_each_nfe_and_what_is_stated():
    (axes,) = sweep_figures.panel(grid()).axes
    assert [line.get_label() for line in axes.lines] == ["1 NFE", "2 NFE", "4 NFE"]
    assert list(axes.lines[0].get_xdata()) == [1, 2, 4]
    coverage = [cell(n, m, 0.5, "coverage_90") for n in (1, 2, 4) for m in (2, 4)]
    (axes,) = sweep_figures.panel(coverage).axes
    assert list(axes.lines[-1].get_ydata()) == [0.9, 0.9]  # what is stated
