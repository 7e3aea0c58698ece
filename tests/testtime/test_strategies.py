"""Strategies side by side: complete, at the cost they say, and equal to what they stand for."""

from __future__ import annotations

import csv
from collections import defaultdict

import pytest
import torch

from stepsight.errors import UserError
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.jobs import ScoringPlan, protocol_of
from stepsight.evaluation.results import metrics_of
from stepsight.measures import measure
from stepsight.testtime import strategies
from stepsight.testtime.strategies import Trial, run
from stepsight.testtime.verifiers import Candidates

NFE, MEMBERS = 2, 8
COLUMNS = (
    "task,strategy,nfe,members,total_calls,mean_calls,metric,value,lo,hi,"
    "baseline,difference,difference_lo,difference_hi,verdict,images"
)
OWN = {"depth": "median", "flow": "mean", "amodal": "mean", "semantic": "mean"}
MEDIAN = {"depth": "median", "flow": "median", "amodal": "vote", "semantic": "vote"}
WRITTEN = ("depth", "flow", "amodal")  # intervals of confusion matrices take long
WARM = {"cold_1", "carried", "carried_moved"} | {
    f"warm_1{how}_from_{strength}" for how in ("", "_moved") for strength in (0.3, 0.5, 0.7)
}


def plan(**changes) -> ScoringPlan:
    settings = {"nfe": [1, NFE], "members": [2, MEMBERS], "images": 4, "sampler": "ddim"}
    return ScoringPlan(**settings | {"seed": 0, "chunk_size": 4} | changes)


@pytest.fixture(scope="module")
def tried(laboratory, tmp_path_factory):
    """The written file, by task and strategy and metric, and what it was made of."""
    lab, folder = laboratory(), tmp_path_factory.mktemp("out") / "sweep"
    pipeline = lab.pipeline(statistics=False)
    made = run(folder, pipeline, {task: lab.held for task in WRITTEN}, plan())
    text = (folder / "strategies.csv").read_text().splitlines()
    assert text[0] == COLUMNS
    found = defaultdict(dict)
    for row in csv.DictReader(text):
        found[row["task"]][row["strategy"], row["metric"]] = row
    assert sum(map(len, found.values())) == len(made)
    return found, pipeline, lab.held


@pytest.mark.parametrize("task", WRITTEN)
def test_every_strategy_is_there(tried, task):
    found, pipeline, _ = tried
    names = {name for name, _ in found[task]}
    own, median = OWN[task], MEDIAN[task]
    merges = {f"{own}_of_2", f"{own}_of_4", own, median, "medoid"}
    expected = merges | {"single", "oracle", "adaptive"}
    assert expected <= names
    assert sum(name.startswith("adaptive_at_") for name in names) == 1
    assert names >= WARM if task == "depth" else not names & WARM
    verified = {name for name in names if f"{name}_half" in names}
    assert len(verified) >= 2


def test_what_they_cost(tried):
    found, _, _ = tried
    for rows in found.values():
        for (name, _), row in rows.items():
            total, mean = int(row["total_calls"]), float(row["mean_calls"])
            assert total <= NFE * MEMBERS and mean <= total
            assert mean == total or name.startswith("adaptive")
    cost = {name: int(row["total_calls"]) for (name, _), row in found["depth"].items()}
    assert (cost["single"], cost["median_of_4"], cost["oracle"]) == (NFE, 4 * NFE, 8 * NFE)
    assert (cost["cold_1"], cost["warm_1_from_0.5"], cost["warm_1_moved_from_0.5"]) == (8, 8, 9)
    assert (cost["carried"], cost["carried_moved"]) == (0, 1)
    evidence = found["depth"]["flow_edges", "abs_rel"]
    assert (evidence["members"], evidence["total_calls"]) == ("4", "16")


@pytest.mark.parametrize("task", WRITTEN)
def test_they_are_what_the_sweep_scores(tried, task):
    found, pipeline, source = tried
    rule = protocol_of(pipeline.config.tasks[task])
    cells = {"single": 1, f"{OWN[task]}_of_2": 2, OWN[task]: MEMBERS}
    scores = score_source(
        pipeline,
        source,
        task,
        protocol=rule.name,
        indices=range(4),
        nfe=[NFE],
        members=list(cells.values()),
    )
    for name, count in cells.items():
        metrics = metrics_of(scores.settings[NFE, count], rule.name)
        ours = {metric: row for (own, metric), row in found[task].items() if own == name}
        assert ours
        for metric, row in ours.items():
            assert float(row["value"]) == pytest.approx(metrics[metric], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("task", WRITTEN)
def test_no_member_beats_the_oracle(tried, task):
    found, pipeline, _ = tried
    metric = pipeline.task(task).metric
    best = float(found[task]["oracle", metric]["value"])
    merges = {OWN[task], MEDIAN[task], "carried"}
    for (name, own), row in found[task].items():
        single = not name.endswith("_half") and f"{name}_half" in {n for n, _ in found[task]}
        if own == metric and (single or name == "single"):
            assert name not in merges
            assert not measure(metric).beats(float(row["value"]), best), name


def test_each_is_compared_with_its_equal(tried):
    found, _, _ = tried
    for task, rows in found.items():
        median = MEDIAN[task]
        base = {name: row["baseline"] for (name, _), row in rows.items()}
        assert base[median] == "" and base["adaptive"] == f"{OWN[task]}_of_4"
        assert base["single"] == base["medoid"] == base["oracle"] == median
        assert base.get("warm_1_from_0.3", "cold_1") == "cold_1"
        assert base.get("cold_1", OWN[task]) == OWN[task]
        for row in rows.values():
            known = {"wins", "loses", "undecided"} if row["baseline"] else {""}
            assert row["verdict"] in known


def test_classes_are_chosen_and_started_warm_too(lab):
    pipeline = lab.pipeline(statistics=False)
    rule = protocol_of(pipeline.tasks["semantic"])
    trial = Trial(pipeline, pipeline.task("semantic"), rule, NFE, 2)
    names = {one.name for one in trial.strategies(lab.held, range(2), lambda images: None)}
    assert names >= WARM | {"mean", "vote", "medoid", "single", "oracle", "code_round_trip"}


def test_one_draw_serves_all_that_choose_or_merge(lab):
    pipeline = lab.pipeline(lab.config(tasks=("amodal",)), statistics=False)
    rows = []
    pipeline.net.register_forward_pre_hook(lambda net, given: rows.append(len(given[0])))
    trial = Trial(pipeline, pipeline.task("amodal"), protocol_of(pipeline.tasks["amodal"]), 2, 4)
    trial.strategies(lab.held, range(3), lambda images: None)
    assert sum(rows) == 3 * 2 * 4


def test_verifiers_are_not_shown_the_truth(lab, monkeypatch):
    shown = []

    def spy(*given):
        shown.append(given[2])
        return Candidates(*given)

    monkeypatch.setattr(strategies, "Candidates", spy)
    pipeline = lab.pipeline(statistics=False)
    for task in OWN:
        rule = protocol_of(pipeline.tasks[task])
        Trial(pipeline, pipeline.task(task), rule, 1, 2).strategies(lab.held, [0], lambda n: None)
    assert len(shown) >= len(OWN)
    for batch in shown:
        for name in ("depth", "flow", "labels", "amodal", "normals", "whole", "occluded"):
            assert getattr(batch, name) is None, name


def test_images_of_several_sizes_are_all_scored(lab):
    source = lab.Source(count=5, seed="held", grids=((16, 16), (24, 32)))
    pipeline = lab.pipeline(statistics=False)
    trial = Trial(pipeline, pipeline.task("flow"), protocol_of(pipeline.tasks["flow"]), 1, 2)
    done = []
    outcomes = trial.strategies(source, range(5), done.append)
    assert {len(one.rows["n"]) for one in outcomes} == {5} and sorted(done) == [2, 3]
    single = next(one for one in outcomes if one.name == "single")
    scored = score_source(
        pipeline, source, "flow", protocol="flow-epe", indices=range(5), nfe=[1], members=[1]
    )
    theirs = scored.settings[1, 1]["epe"]
    order = torch.tensor([0, 2, 4, 1, 3])  # by size
    torch.testing.assert_close(single.rows["epe"], theirs[order], equal_nan=True, rtol=1e-4, atol=0)


def test_one_member_leaves_no_choice(lab, tmp_path):
    pipeline = lab.pipeline(statistics=False)
    with pytest.raises(UserError, match="at least 2"):
        run(tmp_path, pipeline, {"depth": lab.held}, plan(members=[1]))
