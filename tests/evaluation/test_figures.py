"""Figures: what is drawn, not how it looks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from stepsight.evaluation import figures

HOSTILE = "<img src=x onerror=1> $\\frac{1$ & co"


def train_rows(n=48):
    return [
        {"images_seen": 100 * i, "loss": i**-0.5, "loss/flow": i**-0.4, "loss/depth": i**-0.3}
        for i in range(1, n + 1)
    ]


def val_rows(task="depth", metric="abs_rel"):
    baselines = {"constant": {metric: 0.45}, "mean_map": {metric: 0.294}}
    return [
        {
            "task": task,
            "data": "scenes",
            "images_seen": 1000 * i,
            "nfe": 4,
            "members": 1,
            "metrics": {metric: 0.5 / i},
            "baselines": baselines,
        }
        for i in (1, 2, 3)
    ]


def cell(nfe, members, value, metric="abs_rel", width=0.01):
    return {
        "metric": metric,
        "nfe": nfe,
        "members": members,
        "total_calls": nfe * members,
        "value": value,
        "lo": value - width,
        "hi": value + width,
    }


CELLS = [cell(n, m, 0.2 - 0.01 * m + 0.001 * n) for n in (1, 2, 4) for m in (1, 2, 4)]


def texts(figure) -> list[str]:
    root = ET.fromstring(re.sub(r"xlink:", "", figures.to_svg(figure, "x")))
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text]


def test_training_curves_are_one_trend_a_task_over_images_on_a_log_axis():
    axes = figures.training_curves(train_rows()).axes[0]
    named = {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}
    assert list(named) == ["depth", "flow"]  # the order of the house, not of the file
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "images seen"
    assert np.array_equal(named["flow"].get_xdata(), 100.0 * np.arange(1, 49))


def test_training_curves_fall_back_to_the_total_and_skip_what_has_no_logarithm():
    rows = [{"images_seen": i, "loss": value} for i, value in enumerate([1.0, 0.0, 0.5, np.nan])]
    axes = figures.training_curves(rows).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0.0, 2.0]
    figures.to_svg(axes.figure, "x")


def test_trend_keeps_exponential_decay_and_averages_noise():
    decay = np.exp(-0.1 * np.arange(96))
    assert figures.trend(decay)[10:-10] == pytest.approx(decay[10:-10])
    noisy = np.exp(np.random.default_rng(0).normal(0, 0.1, 960))
    assert np.std(figures.trend(noisy)) < 0.03


def test_validation_shows_the_metric_with_each_baseline_dashed():
    axes = figures.validation_curves(val_rows(), "depth").axes[0]
    curve, *dashed = axes.lines
    assert curve.get_ydata().tolist() == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert [line.get_ydata()[0] for line in dashed] == [0.45, 0.294]
    assert all(line.is_dashed() for line in dashed)
    assert "lower is better" in axes.get_ylabel()


@pytest.mark.parametrize("metric, best", [("abs_rel", (1.0, 4.0)), ("iou", (4.0, 1.0))])
def test_the_heat_map_says_every_value_and_frames_the_best(metric, best):
    rows = [row | {"metric": metric} for row in CELLS]
    axes = figures.heat_map(rows, "x").axes[0]
    assert len(axes.texts) == len(CELLS)
    (frame,) = axes.patches
    nfes, members = [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]
    assert (nfes[int(frame.get_x())], members[int(frame.get_y())]) == best


def test_the_heat_map_leaves_gaps_where_nothing_was_measured():
    axes = figures.heat_map(CELLS[:-1], "x").axes[0]
    assert len(axes.texts) == len(CELLS) - 1


def test_the_pareto_set_improves_with_every_call_spent():
    front = figures.pareto_set(CELLS)
    calls, values = zip(*((row["total_calls"], row["value"]) for row in front))
    assert list(calls) == [1, 2, 4] and list(values) == sorted(values, reverse=True)
    for row in CELLS:
        assert any(
            f["total_calls"] <= row["total_calls"] and f["value"] <= row["value"] for f in front
        )


def test_the_pareto_set_of_a_score_climbs():
    rows = [cell(1, 1, 0.5, "iou"), cell(2, 1, 0.4, "iou"), cell(4, 1, 0.6, "iou")]
    assert [row["value"] for row in figures.pareto_set(rows)] == [0.5, 0.6]


def test_the_law_is_drawn_over_the_measured_range_only():
    figure = figures.pareto_plot(CELLS, "x", lambda calls: 0.2 / calls)
    law = next(line for line in figure.axes[0].lines if line.get_label() == "fitted law")
    assert (law.get_xdata()[0], law.get_xdata()[-1]) == pytest.approx((1, 16))
    assert law.get_ydata() == pytest.approx(0.2 / law.get_xdata())
    assert figure.axes[0].get_xscale() == "log"


def fit(verdict, r2=0.9, **params):
    return {"verdict": verdict, "params": params, "r2": r2}


def test_a_law_is_a_fit_that_earned_the_name():
    fits = {"compute": {"power": fit("improves but no law", A=2.0, a=0.5)}}
    assert figures.fitted_law(fits, "abs_rel") is None
    assert figures.fitted_law({}, "abs_rel") is None


def test_the_better_of_two_laws_is_evaluated():
    power, floor = fit("law", 0.8, A=2.0, a=0.5), fit("law", 0.9, A=1.0, a=1.0, E=0.1)
    law = figures.fitted_law({"compute": {"power": power, "power_floor": floor}}, "epe")
    assert law is not None
    assert law(np.array([1.0, 4.0])) == pytest.approx([1.1, 0.35])


def test_laws_of_scores_are_fitted_to_what_is_missing_to_one():
    law = figures.fitted_law({"compute": {"power": fit("law", A=0.4, a=0.5)}}, "iou")
    assert law is not None and law(np.array([4.0])) == pytest.approx([0.8])


def test_svg_is_well_formed_without_outside_references_and_follows_the_page():
    svg = figures.to_svg(figures.pareto_plot(CELLS, HOSTILE), HOSTILE)
    root = ET.fromstring(svg)
    assert "width" not in root.attrib and "viewBox" in root.attrib
    assert "currentColor" in svg and figures.INK not in svg
    assert "<img" not in svg and "<script" not in svg and "<metadata" not in svg
    assert not re.search(r"""(href|src)=["'](?!#)""", svg)


def test_names_are_shown_as_they_are_and_never_typeset():
    assert HOSTILE in texts(figures.pareto_plot(CELLS, HOSTILE))


def test_png_is_written_on_white(tmp_path):
    path = figures.to_png(figures.heat_map(CELLS, "x"), tmp_path / "sweep" / "heat.png")
    image = Image.open(path).convert("RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255) and image.width > 500


def test_counts_are_short():
    assert [figures._count(n) for n in (0, 500, 1500, 48000, 2e6)] == [
        "0",
        "500",
        "1.5k",
        "48k",
        "2M",
    ]
