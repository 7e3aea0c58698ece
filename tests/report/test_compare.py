"""Runs side by side: scores share a table only if they were made in the same way."""

from __future__ import annotations

import json

import pytest

from stepsight.cli.main import main
from stepsight.config import from_dict
from stepsight.conversion.write import Converted, write
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.report.compare import compare, read_run


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
    assert [row.split()[1] for row in rows[2:]] == ["pretrained", "scratch", "mean_map"]
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
