"""What calls and images buy, in one figure: every task in percent of where it starts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from stepsight.report.cost import cost_curve, learning_curve
from stepsight.report.sweep.folder import SweepFolder, read_sweep_folder
from stepsight.results import Result
from stepsight.scaling.sampling.sweeps import Cell, write_sweep


def cell(nfe: int, value: float, task: str = "depth", metric: str = "abs_rel") -> Cell:
    how = {"sampler": "ddim", "spacing": "trailing", "schedule": "trained", "peak_gb": 1.0}
    cost = {"gflop_per_image": 1.0 * nfe, "ms_per_image": 1.0 * nfe, "total_calls": nfe}
    ends = {"value": value, "lo": value, "hi": value}
    return Cell(task=task, metric=metric, nfe=nfe, members=1, **how, **cost, **ends)


def swept(folder: Path, cells: list[Cell], gains: dict[int, float]) -> SweepFolder:
    """gains: lower ends of the intervals of gains, by calls."""
    write_sweep(folder / "sweep.csv", cells)
    points = [asdict(one) | {"gain_lo": gains.get(one.nfe), "gain_hi": 0.9} for one in cells]
    (folder / "frontier.json").write_text(json.dumps({"depth": {"points": points}}))
    return read_sweep_folder(folder)


def drawn(figure: Figure | None) -> tuple[list[Any], list[str]]:
    """Lines, and names at their ends."""
    assert figure is not None
    (axes,) = figure.axes
    return list(axes.lines), [t.get_text() for t in axes.texts if t.get_text() != "●"]


def test_a_line_goes_down_where_calls_pay_and_on_to_the_most_that_were_tried(tmp_path):
    cells = [cell(1, 0.2), cell(2, 0.15), cell(4, 0.1), cell(8, 0.3)]
    lines, names = drawn(cost_curve(swept(tmp_path, cells, {2: 0.1, 4: -0.1})))
    assert lines[0].get_xdata().tolist() == [1, 2, 4, 8]
    assert lines[0].get_ydata() == pytest.approx([100, 75, 50, 50])
    assert [mark.get_markerfacecolor() == "none" for mark in lines[1:]] == [False, False, True]
    assert names == ["depth 50 %"]


def test_where_higher_is_better_the_error_is_what_is_lacking(tmp_path):
    cells = [cell(n, v, "amodal", "iou") for n, v in ((1, 0.6), (2, 0.8))]
    cells = [replace(one, lo=math.nan, hi=math.nan) for one in cells]
    lines, names = drawn(cost_curve(swept(tmp_path, cells, {})))
    assert lines[0].get_ydata() == pytest.approx([100, 50, 50]) and names == ["amodal 50 %"]
    assert lines[2].get_markerfacecolor() == "none"  # no interval is known


def test_scores_at_several_settings_do_as_well_and_at_one_there_is_no_curve():
    def scored(nfe: int, value: float, protocol: str = "p@1") -> Result:
        found = {"metric": "abs_rel", "metrics": {"abs_rel": value}, "protocol": protocol}
        return Result(task="depth", nfe=nfe, members=2, **found)

    lines, _ = drawn(cost_curve([scored(4, 0.1), scored(1, 0.2), scored(8, 0.05, "other@1")]))
    assert lines[0].get_xdata().tolist() == [2, 8, 8]
    assert lines[0].get_ydata() == pytest.approx([100, 50, 50])
    assert cost_curve([scored(1, 0.0), scored(2, 0.1)]) is None  # nothing is a share of no error
    assert cost_curve([scored(1, 0.2)]) is None and cost_curve(SweepFolder()) is None


def test_learning_is_in_percent_of_the_best_trivial_predictor():
    def row(seen: int, value: float, nfe: int = 1, **more: Any) -> dict[str, Any]:
        baselines = {"mean_map": {"abs_rel": 0.4}, "constant": {"abs_rel": 0.8}, "none": {}}
        found = {"task": "depth", "data": "scenes", "nfe": nfe, "members": 1, "images_seen": seen}
        return found | {"metrics": {"abs_rel": value}, "baselines": baselines} | more

    rows = [row(200, 0.2), row(100, 0.5), row(200, 0.1, nfe=4)]
    generated = row(100, 0.1, task="image", metrics={}, baselines={})
    lines, names = drawn(learning_curve([*rows, generated]))
    assert len(lines) == 2 and names == ["depth 50 %"]
    assert lines[0].get_xdata().tolist() == [100, 200]
    assert lines[0].get_ydata() == pytest.approx([125, 50])
    assert learning_curve([generated]) is None and learning_curve([]) is None


def test_names_that_would_meet_stand_above_each_other():
    rows = [
        {"task": task, "data": "d", "nfe": 1, "members": 1, "images_seen": 1}
        | {"metrics": {metric: value}, "baselines": {"b": {metric: trivial}}}
        for task, metric, value, trivial in (("depth", "abs_rel", 0.2, 0.4), ("flow", "epe", 1, 2))
    ]
    figure = learning_curve(rows)
    assert figure is not None
    heights = sorted({text.xy[1] for text in figure.axes[0].texts})  # type: ignore[attr-defined]
    low, high = figure.axes[0].get_ylim()
    assert len(heights) == 2 and heights[1] - heights[0] >= 0.07 * (high - low)
