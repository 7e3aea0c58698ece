"""The sweep's files: what each cell costs and reaches, what is concluded, and who reads it."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.report import write_report
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.run import Identity, Plan, forward_flops, sweep
from stepsight.evaluation.run_folder import read_run
from stepsight.evaluation.sweep import fits, statements, sweep_rows

COLUMNS = (
    "task,sampler,spacing,schedule,nfe,members,total_calls,gflop_per_image,ms_per_image,peak_gb,"
    "metric,value,lo,hi"
)
GRID = [(nfe, members) for nfe in (1, 2, 4) for members in (1, 2, 4)]
WHO = Identity("run-1", "c0ffee", "abc", 0, "hourglass-32", 1000, 1000, 5e12, 640, {})


@pytest.fixture(scope="module")
def swept(laboratory, tmp_path_factory):
    """A run folder with a real sweep of all tasks, and the pipeline that made it."""
    lab, run = laboratory(), tmp_path_factory.mktemp("run")
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in pipeline.tasks}
    plan = Plan([1, 2], [1, 2], 5, "ddim", 0, 8)
    claims = sweep(run / "sweep", pipeline, sources, plan, WHO, run / "records.jsonl")
    return run, pipeline, claims


def table(run) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "sweep/sweep.csv").read_text().splitlines()))


def test_the_columns_of_the_sweep(swept):
    run, pipeline, _ = swept
    header, *_ = (run / "sweep/sweep.csv").read_text().splitlines()
    assert header == COLUMNS
    rows = table(run)
    cells = {(r["task"], r["nfe"], r["members"], r["metric"]) for r in rows}
    assert len(cells) == len(rows)
    for task in pipeline.tasks.values():
        assert sum((r["task"], r["metric"]) == (task.name, task.metric) for r in rows) == 4
    assert not {"n", "n_images", "hidden", "confusion"} & {r["metric"] for r in rows}


def test_what_a_cell_costs(swept):
    run, pipeline, _ = swept
    flops = {task: forward_flops(pipeline, task) for task in pipeline.tasks}
    assert flops["flow"] > flops["depth"]
    for row in table(run):
        calls = int(row["nfe"]) * int(row["members"])
        assert int(row["total_calls"]) == calls
        assert float(row["gflop_per_image"]) == pytest.approx(flops[row["task"]] * calls / 1e9)
        assert float(row["ms_per_image"]) > 0 and float(row["peak_gb"]) > 0
        assert (row["sampler"], row["spacing"]) == ("ddim", "trailing")


def test_what_a_cell_reaches(swept):
    for row in table(swept[0]):
        low, value, high = (float(row[name]) for name in ("lo", "value", "hi"))
        assert low <= value <= high or math.isnan(low)


def test_laws_and_statements_are_kept_for_the_report(swept):
    run, pipeline, claims = swept
    laws = json.loads((run / "sweep/fit.json").read_text())
    assert laws.keys() == pipeline.tasks.keys()
    for curves in laws.values():
        assert curves.keys() == {"steps", "members", "compute"}
        for forms in curves.values():
            assert all({"verdict", "params", "formula"} <= law.keys() for law in forms.values())
    told = json.loads((run / "sweep/claims.json").read_text())
    assert len(told) == len(claims) == 3 * len(pipeline.tasks)
    assert {one["verdict"] for one in told} <= {"holds", "fails", "undecided"}
    assert {one["metric"] for one in told} == {task.metric for task in pipeline.tasks.values()}


def test_the_report_reads_it(swept):
    run, pipeline, claims = swept
    assert read_run(run).swept_tasks() == list(pipeline.tasks)
    page = write_report(run).read_text()
    for claim in claims:
        assert claim["statement"] in page
    assert page.count("<svg") >= 2 * len(pipeline.tasks)


def made_up(task: str, metric: str, value) -> Scores:
    """Scores of six images: `value(nfe, members)`, some images harder than others by a factor."""
    hard = torch.linspace(0.9, 1.1, 6, dtype=torch.float64)
    scores = Scores(task, "scenes", {"flow": "flow-epe", "amodal": "amodal-iou"}[task])
    scores.keys = list("abcdef")
    for setting in GRID:
        rows = {"n": torch.ones(6), metric: value(*setting) * hard}
        scores.settings[setting] = rows | {"union": torch.ones(6)}
        scores.seconds[setting] = 0.001 * setting[0] * setting[1]
    return scores


def rows_of(lab, scores: Scores) -> list[dict]:
    pipeline = lab.pipeline(statistics=False)
    return sweep_rows(scores, pipeline, "ddim", forward_flops(pipeline, scores.task))


def test_a_power_law_in_members_is_found(lab):
    scores = made_up("flow", "epe", lambda nfe, members: 2.0 * members**-0.5 / nfe)
    found = fits(rows_of(lab, scores), "flow", "epe")
    law = found["members"]["power"]["params"]
    assert min(abs(abs(value) - 0.5) for value in law.values()) < 1e-3
    assert found["members"]["power"]["n"] == found["steps"]["power"]["n"] == 3
    assert found["compute"]["power"]["n"] == 5  # 1, 2, 4, 8 and 16 calls


def test_where_more_is_better_the_shortfall_is_fitted(lab):
    scores = made_up("amodal", "iou", lambda nfe, members: 1.0)
    for (nfe, members), rows in scores.settings.items():
        rows["iou"] = torch.full((6,), 1 - 0.4 / (nfe * members), dtype=torch.float64)
    params = fits(rows_of(lab, scores), "amodal", "iou")["members"]["power"]["params"]
    assert min(abs(abs(value) - 1.0) for value in params.values()) < 1e-3


@pytest.mark.parametrize("spoiled", [math.nan, 1.0])
def test_what_has_no_logarithm_is_left_out_of_the_fits(lab, spoiled):
    """An error of zero, or one that could not be measured."""
    scores = made_up("amodal", "iou", lambda nfe, members: 0.9 - 0.4 / (nfe * members))
    scores.settings[4, 4]["iou"] = torch.full((6,), spoiled)
    found = fits(rows_of(lab, scores), "amodal", "iou")
    assert found["members"]["power"]["n"] == 2 and found["steps"]["power"]["n"] == 3


def test_statements_follow_the_direction_of_the_metric(lab):
    pipeline = lab.pipeline(statistics=False)
    better = made_up("amodal", "iou", lambda nfe, members: 0.5 + 0.05 * members - 0.02 * nfe)
    worse = made_up("flow", "epe", lambda nfe, members: 0.5 + 0.05 * members - 0.02 * nfe)
    verdicts = {(c.task, c.statement): c.verdict for c in statements([better, worse], pipeline)}
    assert verdicts["amodal", "more members help"] == "holds"
    assert verdicts["amodal", "more steps alone help"] == "fails"
    assert verdicts["flow", "more members help"] == "fails"
    assert verdicts["flow", "more steps alone help"] == "holds"


def test_values_are_those_of_the_rows(lab):
    scores = made_up("flow", "epe", lambda nfe, members: 1.0 / (nfe + members))
    for row in rows_of(lab, scores):
        expected = metrics_of(scores.settings[row["nfe"], row["members"]], "flow-epe")
        assert row["value"] == pytest.approx(expected[row["metric"]])
