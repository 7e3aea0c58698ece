"""Reliability diagrams: the points are the data's, and a perfect ensemble looks perfect."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepsight.metrics.uncertainty import (
    LEVELS,
    interval_calibration,
    probability_calibration,
)
from stepsight.report.reliability import (
    expected_coverage,
    reliability,
    reliability_diagram,
    write_reliability,
)


def ensemble_sums(members: int, images: int = 40, scale: float = 1.0):
    """Truth and members are draws from one normal distribution at every pixel; intervals are
    `scale` times as wide as the members say."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(members + 1, images, 1, 24, 24, generator=draw, dtype=torch.float64)
    valid = torch.ones_like(x[0], dtype=torch.bool)
    mean, deviation = x[1:].mean(0), scale * x[1:].std(0, correction=1)
    return interval_calibration(mean, deviation, x[0], valid)


@pytest.mark.parametrize("members", [2, 4, 16])
def test_a_perfect_ensemble_covers_what_its_size_allows(members):
    points = reliability(ensemble_sums(members).numpy())
    assert points.stated == pytest.approx(LEVELS)
    assert points.observed == pytest.approx(expected_coverage(np.array(LEVELS), members), abs=0.01)


def test_many_members_cover_what_they_state():
    levels = np.array(LEVELS)
    assert expected_coverage(levels, 10_000) == pytest.approx(levels, abs=1e-3)
    assert (expected_coverage(levels, 2) < levels).all()


def test_totals_are_pooled_and_weigh_the_error():
    sums = np.zeros((2, 3, 3))
    sums[0, 0], sums[1, 0] = (3, 0.3, 0), (1, 0.1, 2)
    sums[0, 2] = (4, 3.6, 1)
    points = reliability(sums)
    assert points.stated == pytest.approx([0.1, 0.9])  # the bin without weight is left out
    assert points.observed == pytest.approx([0.5, 0.25])
    assert points.error == pytest.approx((0.4 + 0.65) / 2)


def test_probabilities_that_come_true_have_no_error():
    draw = torch.Generator().manual_seed(0)
    stated = torch.rand(50, 1, 40, 40, generator=draw)
    happened = torch.rand(50, 1, 40, 40, generator=draw) < stated
    sums = probability_calibration(stated, happened, torch.ones_like(happened))
    points = reliability(sums.numpy())
    assert points.error < 0.01 and points.share == pytest.approx([0.1] * 10, abs=0.01)
    assert (
        reliability(
            probability_calibration(stated, ~happened, torch.ones_like(happened)).numpy()
        ).error
        > 0.3
    )


@pytest.mark.parametrize("task, panels", [("flow", 1), ("amodal", 2)])
def test_probabilities_show_how_much_stands_where(task, panels):
    figure = reliability_diagram(reliability(ensemble_sums(4, 3).numpy()), task, 4)
    assert len(figure.axes) == panels
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert ("perfect, of 4 members" in labels) == (task == "flow")


def test_calibrated_intervals_stand_beside_those_of_the_raw_members():
    points, raw = (reliability(ensemble_sums(8, 4, scale).numpy()) for scale in (1.0, 0.3))
    figure = reliability_diagram(points, "depth", 8, raw)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    told = [
        f"raw members, ECE {100 * raw.error:.1f} %",
        f"calibrated, ECE {100 * points.error:.1f} %",
    ]
    assert labels == ["perfect", *told] and raw.error > 5 * points.error


def test_the_axis_of_one_answer_is_its_own_probability():
    figure = reliability_diagram(reliability(ensemble_sums(4, 3).numpy()), "semantic", 1)
    assert figure.axes[1].get_xlabel() == "stated probability of the answer"
    assert figure.axes[0].get_title(loc="left") == "semantic: reliability of one answer"


def test_rows_without_calibration_draw_nothing(tmp_path):
    path = tmp_path / "reliability-depth.png"
    assert write_reliability(path, "depth", {}, 4) is None
    assert write_reliability(path, "depth", {"calibration": torch.zeros(2, 9, 3)}, 4) is None
    assert not path.exists()
    assert write_reliability(path, "depth", {"calibration": ensemble_sums(3, 2)}, 3) == path
    assert path.is_file()
