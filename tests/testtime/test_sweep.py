"""The sweep's files: what each setting costs and reaches, what is concluded, and that a sweep that
was killed goes on."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
import torch

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.jobs import ScoringPlan, jobs_of
from stepsight.evaluation.records import Identity, cost_of
from stepsight.evaluation.results import metrics_of
from stepsight.report.page import write_report
from stepsight.report.panels import read_panels
from stepsight.report.run_folder import read_run
from stepsight.scaling import records
from stepsight.scaling.sampling.claims import decide
from stepsight.scaling.sampling.questions import CALLS, MEMBERS
from stepsight.scaling.sampling.sweeps import COLUMNS, read_sweep
from stepsight.testtime.sweep import VariantScores, cells_of, sweep, sweep_variants, tables_of
from stepsight.testtime.variants import Axes, Candidate, Variant, variants

GRID = [(nfe, members) for nfe in (1, 2, 4) for members in (1, 2, 4)]
WHO = Identity("run-1", "c0ffee", "abc", 0, "hourglass-32", 1000, 1000, 5e12, 640, {})
PLAN = ScoringPlan([1, 2], [1, 2], 5, "ddim", 0, 8)
STATED = {"ause", "aurg", "spread"}  # scores of an uncertainty that every task has


@pytest.fixture(scope="module")
def swept(laboratory, tmp_path_factory):
    """A run folder with a real sweep of all tasks, and the pipeline that made it."""
    lab, run = laboratory(), tmp_path_factory.mktemp("run")
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in pipeline.tasks}
    claims = sweep(run / "sweep", pipeline, sources, PLAN, WHO, run / "records.jsonl")
    return run, pipeline, claims


def table(run) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "sweep/sweep.csv").read_text().splitlines()))


def test_the_columns_of_the_sweep(swept):
    run, pipeline, _ = swept
    header, *_ = (run / "sweep/sweep.csv").read_text().splitlines()
    assert tuple(header.split(",")) == COLUMNS
    rows = table(run)
    names = "task temperature views nfe members metric".split()
    assert len({tuple(r[name] for name in names) for r in rows}) == len(rows)
    starts = {(r["temperature"], r["views"]) for r in rows}
    assert starts == {("0.0", "none"), ("0.0", "mirror"), ("1.0", "none")}
    for task in pipeline.tasks.values():
        own = [r for r in rows if r["task"] == task.name]
        assert sum(r["metric"] == task.metric for r in own) == 2 + 2 + 4  # from zeros one member
        assert {(r["merge"], r["size"], r["images"]) for r in own} == {
            (task.merge_by, "16x16", "5")
        }
    assert not {"n", "n_images", "hidden", "confusion", "calibration"} & {r["metric"] for r in rows}


def test_ensembles_have_scores_of_their_uncertainty(swept):
    run, pipeline, _ = swept
    for task in pipeline.tasks:
        for members in ("1", "2"):
            own = {r["metric"] for r in table(run) if (r["task"], r["members"]) == (task, members)}
            alone = task in ("amodal", "semantic")  # they state probabilities without an ensemble
            assert own & STATED == (STATED if members == "2" or alone else set())


def test_what_a_cell_costs(swept):
    run, pipeline, _ = swept
    costs = {task: cost_of(pipeline, task) for task in pipeline.tasks}
    assert costs["flow"].call + costs["flow"].encode > costs["depth"].call + costs["depth"].encode
    for row in table(run):
        calls = int(row["nfe"]) * int(row["members"])
        assert int(row["total_calls"]) == calls
        cost, views = costs[row["task"]], 2 if row["views"] == "mirror" and row["nfe"] == "2" else 1
        flops = views * cost.encode + calls * cost.call  # encoded once a view for all members
        assert float(row["gflop_per_image"]) == pytest.approx(flops / 1e9)
        assert min(float(row[name]) for name in ("ms_per_image", "latency_ms", "peak_gb")) > 0
        assert (row["sampler"], row["spacing"], row["schedule"]) == ("ddim", "trailing", "trained")


def test_what_a_cell_reaches(swept):
    for row in table(swept[0]):
        low, value, high = (float(row[name]) for name in ("lo", "value", "hi"))
        assert low <= value <= high or math.isnan(low)


def test_what_follows_is_kept_for_the_report(swept):
    run, pipeline, claims = swept
    for name in ("fit.json", "frontier.json"):
        assert json.loads((run / "sweep" / name).read_text()).keys() == pipeline.tasks.keys()
    told = json.loads((run / "sweep/claims.json").read_text())
    assert told == json.loads(json.dumps([claim.to_dict() for claim in claims])) and told
    assert {one["verdict"] for one in told} == {"undecided"}, "of five images nothing is decided"
    assert {one["metric"] for one in told if one["main"]} == {
        task.metric for task in pipeline.tasks.values()
    }
    assert {"crps", "brier", "edge_f1"} <= {one["metric"] for one in told}
    averaged = {one["task"]: one["averaging"] for one in told if one["main"]}
    assert averaged["semantic"] == "pooled" and averaged["depth"] == "per image"
    pictures = {path.name for path in (run / "sweep").glob("*.png")}
    assert pictures >= {f"pareto-{task}.png" for task in pipeline.tasks}
    for kind in ("panels", "films"):
        assert [one.task for one in read_panels(run / "sweep", kind)] == [*pipeline.tasks]
    assert not (run / "sweep/sweep.html").exists()  # the report has its sections


def test_the_report_reads_it(swept):
    run, _, claims = swept
    assert read_run(run)
    page = write_report(run).read_text()
    for claim in claims:
        assert claim.statement in page


def candidate(lab, tasks=("depth", "semantic"), path="runs/a", name="digest") -> Candidate:
    pipeline = lab.pipeline(statistics=False)
    pipeline.name = name
    return Candidate(path, pipeline, WHO, {task: lab.held for task in tasks}, "frames of old")


def test_every_combination_is_a_row_and_merges_share_a_draw(lab, tmp_path, monkeypatch):
    one = candidate(lab)
    axes = Axes(["ddim", "heun"], merges=["mean", "median", "vote"], sizes=[8, 16])
    drawn, sample = [], type(one.pipeline).sample

    def counted(self, batch, task, **options):
        drawn.append((self.diffusion.settings.sampler, task, options["nfe"], len(batch)))
        return sample(self, batch, task, **options)

    monkeypatch.setattr(type(one.pipeline), "sample", counted)
    plan = replace(PLAN, nfe=[1, 3])
    found = variants([one], plan, axes).kept
    sweep_variants(tmp_path / "out", found, tmp_path / "records.jsonl")
    assert sorted(row for row in drawn if row[-1] > 1) == sorted(  # films are of single images
        (sampler, task, nfe, 5)
        for sampler in ("ddim", "heun")
        for task in ("depth", "semantic")
        for nfe in (1, 3)
        for _ in (8, 16)
    )
    rows = [c for c in read_sweep(tmp_path / "out/sweep.csv") if c.metric in ("abs_rel", "miou")]
    merges = {"depth": {"mean", "median"}, "semantic": {"mean", "vote"}}
    assert len(rows) == len({(c.task, c.family, c.setting) for c in rows}) == 2 * 2 * 2 * 2 * 4
    assert {c.size for c in rows} == {"8x8", "16x16"} and {c.checkpoint for c in rows} == {"runs/a"}
    assert all(c.merge in merges[c.task] for c in rows)
    costs = {(c.task, c.size): c.gflop_per_image / c.total_calls for c in rows}
    assert costs["depth", "8x8"] < 0.5 * costs["depth", "16x16"]
    told = {(r["task"], r["sampler"], r["size"], r["merge"]) for r in per_sample(tmp_path / "out")}
    assert len(told) == 2 * 2 * 2 * 2
    lines, _ = records.read(tmp_path)
    assert {line.sampler for line in lines} >= {"ddim 8px mean", "heun 16px median"}
    assert (tmp_path / "out/sweep.html").exists()


def per_sample(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "per_sample.csv").read_text().splitlines()))


def test_a_merge_of_a_sweep_is_that_of_the_task_alone(lab, tmp_path):
    """Merged by one rule among several, and by a task that has this rule for its own."""
    one = candidate(lab, ("flow",))
    found = variants([one], PLAN, Axes(merges=["mean", "median"])).kept
    sweep_variants(tmp_path / "both", found, tmp_path / "records.jsonl", page=False)
    other = replace(one, pipeline=one.pipeline.sampling(merge={"flow": "median"}))
    found = variants([other], PLAN, Axes()).kept
    sweep_variants(tmp_path / "alone", found, tmp_path / "records.jsonl", page=False)
    values = [
        {(c.setting, c.metric): c.value for c in read_sweep(path) if c.merge == "median"}
        for path in (tmp_path / "both/sweep.csv", tmp_path / "alone/sweep.csv")
    ]
    assert values[0] == pytest.approx(values[1], nan_ok=True) and len(values[0]) > 8


class Power(KeyboardInterrupt):
    """The machine goes down."""


def test_a_killed_sweep_goes_on_from_its_last_image(lab, tmp_path, monkeypatch):
    many = [candidate(lab, ("depth",), *names) for names in (("a", "aaaaaa"), ("b", "bbbbbb"))]
    tried = variants(many, replace(PLAN, chunk_size=2), Axes(["ddim", "euler"])).kept

    def result(folder):
        sweep_variants(folder, tried, tmp_path / "records.jsonl", page=False)
        measured = {"ms_per_image": 0.0, "latency_ms": 0.0, "peak_gb": 0.0}
        return [replace(c, **measured) for c in read_sweep(folder / "sweep.csv")]

    whole, drawn = result(tmp_path / "whole"), []
    monkeypatch.setattr("stepsight.testtime.sweep.latencies", lambda jobs, _: [{} for _ in jobs])
    sample = type(many[0].pipeline).sample

    def dying(self, batch, task, **options):
        if len(drawn) == limit:
            raise Power
        drawn.extend([batch.keys] if options["chunk_size"] == 2 else [])  # a film's are 64
        return sample(self, batch, task, **options)

    def counted(self, batch, task, **options):
        return dying(self, batch, task, **{"chunk_size": 64} | options)

    monkeypatch.setattr(type(many[0].pipeline), "sample", counted)
    limit = 15  # of 4 variants, 3 batches and 2 NFE: in the third batch of the third variant
    with pytest.raises(Power):
        result(tmp_path / "killed")
    assert not (tmp_path / "killed/sweep.csv").exists()
    limit = -1
    assert [str(cell) for cell in result(tmp_path / "killed")] == [str(cell) for cell in whole]
    assert len(drawn) == 15 + 4 * 3 * 2 - 14, "a batch was drawn twice, but for the torn one"
    assert not (tmp_path / "killed/journal").exists()


def made_up(task: str, metric: str, value, images: int = 12) -> Scores:
    """Scores of some images: `value(nfe, members)`, some harder than others by a factor."""
    hard = torch.linspace(0.9, 1.1, images, dtype=torch.float64)
    scores = Scores(task, "scenes", {"flow": "flow-epe", "amodal": "amodal-iou"}[task])
    scores.keys = [f"scene {i}" for i in range(images)]
    for setting in GRID:
        rows = {"n": torch.ones(images), metric: value(*setting) * hard}
        scores.settings[setting] = rows | {"union": torch.ones(images)}
        scores.seconds[setting] = 0.001 * setting[0] * setting[1]
        scores.peak_gb[setting] = 1.0
    return scores


def scored(lab, scores: Scores) -> VariantScores:
    one = candidate(lab, (scores.task,))
    (job,) = jobs_of(one.pipeline, one.sources, PLAN)
    alone = {(nfe, members): nfe * members / 500 for nfe, members in scores.settings}
    return VariantScores(Variant(one, one.pipeline, PLAN), job, scores, alone)


def verdicts(lab, *every: Scores) -> dict[tuple[str, str], set[str]]:
    found = decide([table for one in every for table in tables_of(scored(lab, one))])
    return {
        (task, statement): {
            one.verdict for one in found if (one.task, one.statement) == (task, statement)
        }
        for task in {one.task for one in found}
        for statement in (CALLS, MEMBERS)
    }


def test_claims_follow_the_direction_of_the_metric(lab):
    def value(nfe: int, members: int) -> float:
        return 0.5 + 0.05 * members - 0.02 * nfe

    found = verdicts(lab, made_up("amodal", "iou", value), made_up("flow", "epe", value))
    assert found["amodal", MEMBERS] == found["flow", CALLS] == {"holds"}
    assert found["amodal", CALLS] == found["flow", MEMBERS] == {"fails"}


def test_a_model_no_better_than_a_constant_makes_no_claims(lab):
    scores = made_up("flow", "epe", lambda nfe, members: 1.0 / nfe)
    scores.baselines["constant"] = {"n": torch.ones(12), "epe": torch.full((12,), 0.9)}
    assert verdicts(lab, scores)["flow", CALLS] == {"broken sampler"}
    scores.baselines["constant"]["epe"] = torch.full((12,), 2.0)
    assert verdicts(lab, scores)["flow", CALLS] == {"holds"}


def test_settings_without_a_number_are_no_part_of_the_comparisons(lab):
    scores = made_up("flow", "epe", lambda nfe, members: math.nan if nfe == 4 else 1.0 / nfe)
    (table,) = tables_of(scored(lab, scores))
    assert {nfe for nfe, _ in table.settings} == {1, 2} and not table.constant
    (one,) = (c for c in decide([table]) if c.statement == CALLS and c.other.members == 1)
    assert (one.other.nfe, one.n, one.value) == (2, 12, -0.5)


def test_starts_and_views_are_axes_of_a_sweep(lab, tmp_path):
    one = candidate(lab, ("depth",))
    axes = Axes(["ddim"], temperatures=[0.0, 1.0], views=["none", "mirror"])
    found = variants([one], PLAN, axes).kept
    sweep_variants(tmp_path / "out", found, tmp_path / "records.jsonl", page=False)
    cells = [c for c in read_sweep(tmp_path / "out/sweep.csv") if c.metric == "abs_rel"]
    told = {(c.temperature, c.views, c.nfe, c.members) for c in cells}
    assert told == {
        (temperature, views, nfe, members)
        for temperature in (0.0, 1.0)
        for views in ("none", "mirror")
        for nfe in (1, 2)
        for members in ((1, 2) if temperature else (1,))
    }
    values = {(c.temperature, c.views, c.setting): c.value for c in cells}
    assert (
        values[0.0, "none", (1, 1)] == values[0.0, "mirror", (1, 1)] != values[1.0, "none", (1, 1)]
    )
    assert values[0.0, "none", (2, 1)] != values[0.0, "mirror", (2, 1)]
    rows = {(r["temperature"], r["views"], r["members"]) for r in per_sample(tmp_path / "out")}
    assert rows == {
        (t, v, m) for t, v, m in ((str(c.temperature), c.views, str(c.members)) for c in cells)
    }
    lines, _ = records.read(tmp_path)
    assert {line.sampler for line in lines} == {
        "ddim T 0",
        "ddim T 0 mirror views",
        "ddim",
        "ddim mirror views",
    }
    claims = json.loads((tmp_path / "out/claims.json").read_text())
    members = [one for one in claims if one["statement"] == MEMBERS]
    assert {one["temperature"] for one in members} == {1.0}


def test_values_are_those_of_the_rows(lab):
    scores = made_up("flow", "epe", lambda nfe, members: 1.0 / (nfe + members))
    scores.uncertainty[2, 2] = {
        "ause": torch.full((12,), 0.25),
        "calibration": torch.ones(12, 3, 3),
    }
    for cell in cells_of(scored(lab, scores)):
        expected = metrics_of(scores.settings[cell.setting], "flow-epe") | {"ause": 0.25}
        assert cell.value == pytest.approx(expected[cell.metric])
        assert cell.ms_per_image == pytest.approx(cell.total_calls)
        assert cell.latency_ms == pytest.approx(2 * cell.total_calls)
