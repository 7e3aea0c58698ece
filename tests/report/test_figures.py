"""Figures: what is drawn, not how it looks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from stepsight.report import figures

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


def texts(figure) -> list[str]:
    root = ET.fromstring(re.sub(r"xlink:", "", figures.to_svg(figure, "x")))
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text]


@matplotlib.rc_context(figures.STYLE)
def hostile():
    figure, axes = figures.new_axes(HOSTILE, "x", "y")
    axes.plot([0, 1], [0, 1], color=figures.INK)
    return figure


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


def test_svg_is_well_formed_without_outside_references_and_follows_the_page():
    svg = figures.to_svg(hostile(), HOSTILE)
    root = ET.fromstring(svg)
    assert "width" not in root.attrib and "viewBox" in root.attrib
    assert "currentColor" in svg and figures.INK not in svg
    assert "<img" not in svg and "<script" not in svg and "<metadata" not in svg
    assert not re.search(r"""(href|src)=["'](?!#)""", svg)


def test_names_are_shown_as_they_are_and_never_typeset():
    assert HOSTILE in texts(hostile())


def test_png_is_written_on_white(tmp_path):
    path = figures.to_png(figures.training_curves(train_rows()), tmp_path / "sweep" / "curves.png")
    image = Image.open(path).convert("RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255) and image.width > 500


def test_counts_are_short():
    assert [figures.short(n) for n in (0, 500, 1500, 48000, 2e6)] == [
        "0",
        "500",
        "1.5k",
        "48k",
        "2M",
    ]
