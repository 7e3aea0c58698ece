"""An evaluation as a whole: files, records, and which data a task is scored on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from stepsight.config import from_dict
from stepsight.data.config import ScenesSettings
from stepsight.data.readers.config import FlyingChairsSettings, HypersimSettings, SintelSettings
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.jobs import ScoringPlan, _data_options, protocol_of
from stepsight.evaluation.records import Identity, cost_of, forward_flops
from stepsight.evaluation.sources import overlap, pick_sources
from stepsight.report.panels import read_panels
from stepsight.scaling import records
from stepsight.testtime.sweep import sweep

WHO = Identity("run-1", "c0ffee", "abc", 3, "split-8", 1000, 1000, 5e12, 640, {"depth": 0.2})
PLAN = ScoringPlan([2], [2], 4, "ddim", 0, 8, label="training frames (overfit): hypersim")


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def test_an_evaluation_writes_results_tables_grids_and_records(lab, tmp_path):
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in pipeline.tasks}
    ledger = tmp_path / "records.jsonl"
    found = evaluate(tmp_path / "eval", pipeline, sources, PLAN, WHO, ledger)
    read = json.loads((tmp_path / "eval/results.json").read_text(), parse_constant=refuse)
    assert [row["task"] for row in read] == [row.task for row in found] == list(sources)
    wanted = "task protocol metrics baselines nfe members data n intervals ratios label".split()
    for row in read:
        assert set(wanted) <= row.keys() and row["n"] == 4
        assert row["label"] == f"{PLAN.label}; partial: 4 of 6"
        assert row["baselines"].keys() == row["ratios"].keys()
        metric = pipeline.task(row["task"]).metric
        low, high = row["intervals"][metric]
        assert low <= row["metrics"][metric] <= high
    for name, count in {"per_sample.csv": 4 * len(sources), "results.csv": len(sources)}.items():
        assert len((tmp_path / "eval" / name).read_text().splitlines()) == 1 + count
    assert [panel.task for panel in read_panels(tmp_path / "eval")] == list(sources)
    assert len(read_panels(tmp_path / "eval", "extremes")) == 2 * len(sources)
    lines, notes = records.read(ledger)
    assert not notes and list(dict.fromkeys(line.task for line in lines)) == list(sources)
    assert {line.metric for line in lines if line.task == "depth"} >= {"abs_rel", "delta1"}
    depth = lines[0]
    assert (depth.run, depth.config, depth.seed, depth.images_seen) == ("run-1", "c0ffee", 3, 640)
    assert depth.value == pytest.approx(read[0]["metrics"]["abs_rel"]) and depth.loss == 0.2
    cost = cost_of(pipeline, "depth")
    assert depth.inference_flops == cost.encode + 4 * cost.call and depth.images == 4
    directions = {(line.task, line.metric): line.lower_is_better for line in lines}
    assert directions["depth", "abs_rel"] and not directions["depth", "delta1"]
    assert directions["flow", "epe"] and not directions["semantic", "miou"]
    assert len(directions) == len(lines) and all(line.time for line in lines)


def test_a_score_says_what_it_was_computed_in(lab, tmp_path):
    """Beside the score wherever it stands; the records of laws, which go over machines, do not."""
    pipeline, ledger = lab.pipeline(), tmp_path / "records.jsonl"
    found = {}
    for precision in ("float32", "bf16"):
        pipeline.asked = precision
        out = tmp_path / precision
        (row,) = evaluate(out, pipeline, {"depth": lab.held}, PLAN, WHO, ledger)
        page = (out / "evaluation.html").read_text()
        found[precision] = row.options.get("precision"), ", bf16" in page
    assert found == {"float32": (None, False), "bf16": ("bf16", True)}
    assert len({line.sampler for line in records.read(ledger)[0]}) == 1


def test_a_sweep_has_one_record_a_task_and_setting(lab, tmp_path):
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in ("depth", "semantic")}
    plan = replace(PLAN, nfe=[1, 2], members=[1, 3], images=0)
    sweep(tmp_path / "sweep", pipeline, sources, plan, WHO, tmp_path / "records.jsonl")
    lines, _ = records.read(tmp_path)
    main = [line for line in lines if line.metric in ("abs_rel", "miou")]
    settings = {
        "ddim T 0": [(1, 1), (2, 1)],  # from zeros, where members would be equal
        "ddim T 0 mirror views": [(1, 1), (2, 1)],
        "ddim": [(1, 1), (1, 3), (2, 1), (2, 3)],  # from noise, as the run has it
    }
    for task in ("depth", "semantic"):
        found = {(line.sampler, line.nfe, line.members) for line in main if line.task == task}
        assert found == {(way, *one) for way, every in settings.items() for one in every}
    assert len(main) == 2 * 8
    assert len(lines) > len(main)
    assert {line.images for line in lines} == {len(lab.held)}
    read = json.loads((tmp_path / "sweep/results.json").read_text(), parse_constant=refuse)
    most = sorted((row["task"], row["nfe"], row["members"]) for row in read)  # of each way
    assert most == [(t, 2, n) for t in ("depth", "semantic") for n in (1, 1, 3)]


def test_a_task_that_no_image_can_be_scored_on_spoils_nothing(lab, tmp_path):
    """Objects that nothing hides are not measured, and there may be no others."""
    whole = [replace(sample, modal=sample.amodal) for sample in lab.held.samples(range(6))]
    lab.held.samples = lambda indices: [whole[i] for i in indices]
    sources = {task: lab.held for task in ("amodal", "depth")}
    plan = replace(PLAN, nfe=[1, 2], members=[1, 2])
    ledger = tmp_path / "records.jsonl"
    evaluate(tmp_path / "eval", lab.pipeline(), sources, plan, WHO, ledger)
    sweep(tmp_path / "sweep", lab.pipeline(), sources, plan, WHO, ledger)
    read = json.loads((tmp_path / "eval/results.json").read_text(), parse_constant=refuse)
    assert read[0]["metrics"]["iou"] is None and read[1]["metrics"]["abs_rel"] > 0
    assert (tmp_path / "eval/panels/depth.json").exists()
    lines, _ = records.read(ledger)
    assert {line.value is None for line in lines if line.task == "amodal"} == {True}


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, "depth-affine-log"),
        ({"space": "inverse"}, "depth-affine"),
        ({"space": "linear"}, "depth-affine"),
        ({"range": "metric"}, "depth-metric"),
        ({"range": "metric", "space": "linear"}, "depth-metric"),
    ],
)
def test_the_protocol_follows_the_kind_of_depth(lab, settings, expected):
    config = from_dict({"model": {"name": "split-8"}, "tasks": {"depth": settings}})
    assert protocol_of(config.tasks["depth"]).name == expected


def test_flops_grow_with_the_image_and_count_the_features(lab):
    pipeline = lab.pipeline()
    small = {task: forward_flops(pipeline, task) for task in pipeline.tasks}
    assert small["flow"] > small["depth"] == small["semantic"] > 0
    pipeline.sizes["depth"] = (32, 32)
    assert forward_flops(pipeline, "depth") > 3.9 * small["depth"]


def trained_on(**settings: Any):
    return from_dict({"tasks": {"depth": {}}, "data": {"hypersim": settings}})


@pytest.mark.parametrize(
    "trained, scored, overlaps",
    [
        ({"split": "train"}, HypersimSettings(eval_split="val"), False),
        ({"split": "train"}, HypersimSettings(eval_split="train"), True),
        ({"split": "all"}, HypersimSettings(eval_split="val"), True),
        ({"split": "train"}, HypersimSettings(eval_split="all"), True),
        ({"split": "train"}, FlyingChairsSettings(eval_split="train"), False),
        ({"split": "train"}, ScenesSettings(), False),
    ],
)
def test_scores_on_frames_that_were_trained_on_are_labelled(trained, scored, overlaps):
    label = overlap(trained_on(**trained), [scored])
    assert label == ("training frames (overfit): hypersim" if overlaps else None)


@dataclass
class Named:
    """A source that is only asked what it has."""

    name: str
    quantities: frozenset[str]


def test_a_task_is_scored_on_the_first_source_that_holds_its_truth(lab):
    pipeline = lab.pipeline()
    chairs, rooms = Named("chairs", frozenset({"flow"})), Named("rooms", frozenset({"depth"}))
    both = {"chairs": chairs, "rooms": rooms}
    assert pick_sources(pipeline, both, None) == {"depth": rooms, "flow": chairs}
    assert pick_sources(pipeline, both, ["flow"]) == {"flow": chairs}
    with pytest.raises(UserError, match="task semantic needs labels; chairs, rooms has none"):
        pick_sources(pipeline, both, ["flow", "semantic"])
    with pytest.raises(UserError, match="bare holds no truth for depth, flow"):
        pick_sources(pipeline, {"bare": Named("bare", frozenset())}, None)
    with pytest.raises(UserError, match="asked for depht"):
        pick_sources(pipeline, both, ["depht"])


def test_results_tell_settings_that_change_the_truth_and_no_others(lab):
    @dataclass
    class Opened:
        settings: SintelSettings

    usual = SintelSettings(root="/data", size=(8, 8), eval_split="all", weight=2.0)
    assert _data_options(cast(Any, Opened(usual))) == _data_options(lab.held) == {}
    assert _data_options(cast(Any, Opened(replace(usual, render="final")))) == {"render": "final"}
