"""The report's section on experts: shares of one row, imbalance of all, nothing for dense runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from stepsight.report.figures import (
    expert_map,
    imbalance,
    imbalance_curves,
    shares,
    usage_figures,
)
from stepsight.report.page import write_report

EVEN, ONE = [[0.25] * 4, [0.25] * 4], [[1.0, 0, 0, 0], [0, 0, 1.0, 0]]


def rows(n: int = 5) -> list[dict]:
    """Flow becomes even at the last row; depth is trained in every second row only."""
    found = []
    for i in range(1, n + 1):
        row = {"kind": "train", "images_seen": 100 * i, "loss": 1 / i, "seconds": float(i)}
        row["experts/flow"] = EVEN if i == n else ONE
        if i % 2:
            row["experts/depth"] = [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]
        found.append(row)
    return found


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (EVEN, 1.0),
        (ONE, 4.0),
        ([[0.5, 0.5, 0.0, 0.0], [0.25] * 4], 1.5),  # the mean over layers of 2 and 1
    ],
)
def test_imbalance_is_the_busiest_expert_over_an_even_one(share, expected):
    assert imbalance(np.array(share)) == pytest.approx(expected)


def test_a_task_has_the_rows_that_trained_it():
    images, share = shares(rows(), "experts/depth")
    assert images.tolist() == [100, 300, 500] and share.shape == (3, 2, 4)


def test_a_map_has_a_cell_an_expert_and_layer_on_the_common_scale_with_the_even_share_marked():
    share = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    axes, bar = expert_map(share, "depth", highest=0.8).axes
    (mesh,) = axes.collections
    assert np.array_equal(np.asarray(mesh.get_array()), share)
    assert mesh.get_clim() == (0, 0.8)
    assert axes.get_xlim() == (0.5, 4.5)
    assert axes.get_ylim() == (2.5, 0.5)  # the first layer on top
    assert [np.asarray(line.get_ydata())[0] for line in bar.lines] == [0.25]
    assert [text.get_text() for text in bar.texts] == ["1/4"]


def test_curves_are_a_line_a_task_over_images():
    usage = {task: shares(rows(), f"experts/{task}") for task in ("depth", "flow")}
    (axes,) = imbalance_curves(usage).axes
    named = {
        line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")
    }
    assert list(named) == ["depth", "flow", "even"]
    assert np.allclose(named["depth"].get_ydata(), 1.6)
    assert np.allclose(named["flow"].get_ydata(), [4, 4, 4, 4, 1])
    assert np.asarray(named["flow"].get_xdata()).tolist() == [100, 200, 300, 400, 500]


def test_maps_share_the_scale_of_the_latest_shares(monkeypatch):
    drawn = {}

    def draw(share, task, highest):
        drawn[task] = share.tolist(), highest
        return expert_map(share, task, highest)

    monkeypatch.setattr("stepsight.report.figures.expert_map", draw)
    curves, maps = usage_figures(rows())
    assert isinstance(curves, Figure) and list(maps) == ["depth", "flow"]
    assert list(drawn) == ["depth", "flow"]
    assert drawn["flow"] == (EVEN, 0.4)  # of the last row, and the highest of both tasks
    assert drawn["depth"][1] == 0.4


def test_the_report_of_a_mixture_has_the_section_and_that_of_a_dense_run_does_not(tmp_path):
    def page(lines: list[dict]) -> str:
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        return write_report(tmp_path).read_text(encoding="utf-8")

    mixture = page(rows())
    dense = page([{k: v for k, v in row.items() if "experts" not in k} for row in rows()])
    assert mixture.count('id="experts"') == 1
    assert mixture.count("<svg") == dense.count("<svg") + 3
    assert "experts" not in dense.lower()
