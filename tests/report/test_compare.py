"""Runs side by side: scores share a table only if they were made in the same way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stepsight.cli.main import main
from stepsight.config import from_dict
from stepsight.conversion.write import Converted, write
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.report.compare import (
    Ranking,
    compare,
    dots,
    read_run,
    read_runs,
    write_comparison,
)

MORE = [Ranking("amodal", "iou", {"a": 0.8, "b": 0.7})]


def result(task="depth", value=0.25, **changes):
    return {
        "task": task,
        "data": "scenes",
        "protocol": "depth-affine-log@1234",
        "sampler": "ddim",
        "nfe": 4,
        "members": 4,
        "n": 128,
        "metrics": {"abs_rel": value, "delta1": 0.5},
        "intervals": {"abs_rel": [value - 0.01, value + 0.01]},
        "baselines": {"mean_map": {"abs_rel": 0.277, "delta1": 0.4}},
    } | changes


@pytest.fixture
def finished(tmp_path):
    """Make an evaluated run folder and return its path."""

    def make(name, results, **meta):
        config = from_dict({"model": {"name": "split-8"}, "tasks": {"depth": {}}})
        meta = {"training_flops": 2e15, "images_seen": 24000, "losses": {"depth": 0.125}} | meta
        write(Converted(config, {}, {"depth": (16, 16)}, Pixels(), meta), tmp_path / name)
        (tmp_path / name / "eval").mkdir()
        (tmp_path / name / "eval" / "results.json").write_text(json.dumps(results))
        return tmp_path / name

    return make


def test_costs_add_up_and_scores_stand_below_each_other(finished):
    first = finished("pretrained", [result(value=0.25)], inherited_flops=3e15)
    second = finished("scratch", [result(value=0.75)])
    text = compare([read_run(first), read_run(second)])
    costs, scores = text.split("\n\n", 1)
    assert "| pretrained | split-8 | 24,000 | 2.000 | 3.000        | 5.000        |" in costs
    assert "| scratch    | split-8 | 24,000 | 2.000 | 0.000        | 2.000        |" in costs
    assert scores.count("depth: scenes, depth-affine-log@1234, 128 images, ddim, 4 NFE") == 1
    rows = [line for line in scores.splitlines() if line.startswith("| ")]
    assert [row.split()[1] for row in rows[2:]] == ["pretrained", "scratch", "mean"]
    assert "| 0.125           | 0.250 [0.240, 0.260]" in rows[2]


@pytest.mark.parametrize(
    "change",
    [{"nfe": 8}, {"members": 1}, {"n": 64}, {"protocol": "depth-metric@1"}, {"skipped": ["a"]}],
)
def test_scores_made_otherwise_get_a_table_of_their_own(finished, change):
    runs = [finished("a", [result()]), finished("b", [result(**change)])]
    text = compare([read_run(run) for run in runs])
    assert text.count("| predictor |") == 2


def test_a_task_of_one_run_alone_is_shown(finished):
    runs = [finished("a", [result()]), finished("b", [result(), result("other", protocol="o@1")])]
    assert "other: scenes, o@1" in compare([read_run(run) for run in runs])


def test_the_command_prints_and_writes(finished, tmp_path, capsys):
    run = finished("a", [result()])
    assert main(["compare", str(run), "--out", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text() == capsys.readouterr().out


def test_a_run_that_was_not_evaluated_is_said(finished):
    run = finished("a", [result()])
    (run / "eval" / "results.json").unlink()
    with pytest.raises(UserError, match="results.json not found: run `uv run evaluate.py"):
        read_run(run)


def test_the_page_says_first_which_run_is_best(finished, tmp_path, capsys):
    runs = [finished("worse", [result(value=0.5)]), finished("better<b>", [result(value=0.4)])]
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out
    page = " ".join((tmp_path / "page.html").read_text().split())
    first = page.partition("<main>")[2].partition("<details")[0]
    assert "better&lt;b&gt; is best, 20.0% less error than worse. AbsRel" in first
    assert first.count("<svg") == 1 and "better<b>" not in page
    assert "the same for all" in page  # costs
    assert page.count('class="drawer"') == 2 and "mean map" in page


def test_a_lead_within_the_intervals_is_said_to_be_so(finished, tmp_path):
    runs = [finished("a", [result(value=0.5)]), finished("b", [result(value=0.495)])]
    page = write_comparison([read_run(run) for run in runs], tmp_path / "page.html").read_text()
    assert "b is best, 1.0% less error than a, though their intervals overlap" in page
    both = [read_run(runs[0]), replace(read_run(runs[0]), name="c")]
    page = write_comparison(both, tmp_path / "page.html").read_text()
    assert "a and c are equal" in page and "is best" not in page


def test_runs_of_one_name_are_told_by_their_paths_and_none_counts_twice(finished):
    runs = [finished("a/last", [result()]), finished("b/last", [result()])]
    assert [run.name for run in read_runs(runs)] == [str(run) for run in runs]
    with pytest.raises(UserError, match="named twice"):
        read_runs([runs[0], runs[0] / "../last"])


def test_marks_are_errors_in_percent_of_the_first_run():
    (axes,) = dots([Ranking("depth", "abs_rel", {"a": 0.5, "b": 0.4}), *MORE]).axes
    drawn = {str(line.get_label()): list(line.get_xdata()) for line in axes.lines[:-1]}
    assert drawn["a"] == pytest.approx([100, 100]) and drawn["b"] == pytest.approx([80, 150])


def test_runs_scored_otherwise_are_not_ranked(finished, tmp_path):
    runs = [finished("a", [result()]), finished("b", [result(nfe=8)])]
    page = write_comparison([read_run(run) for run in runs], tmp_path / "page.html").read_text()
    assert "No two of these runs" in page and page.count('class="drawer"') == 3
