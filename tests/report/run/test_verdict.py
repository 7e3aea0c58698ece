"""What the numbers say: beaten, undecided, and the advice that follows."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stepsight.report.run_folder import RunFolder
from stepsight.report.sweep.folder import SweepFolder
from stepsight.report.verdict import (
    final_results,
    loss_fall,
    next_steps,
    sentences,
    standing_text,
    standings,
)
from stepsight.results import Ratio, Result
from stepsight.scaling.sampling.sweeps import Cell


def result(task="depth", metric="abs_rel", value=0.2, other=0.3, lo=0.6, hi=0.72, label=None):
    return Result(
        task=task,
        metrics={metric: value},
        baselines={"mean_map": {metric: other}},
        ratios={"mean_map": Ratio(value / other, lo, hi, metric)},
        label=label,
    )


def validation(value, images, task="depth", metric="abs_rel"):
    return {
        "task": task,
        "data": "scenes",
        "nfe": 4,
        "members": 1,
        "images_seen": images,
        "metrics": {metric: value},
        "baselines": {"mean_map": {metric: 0.3}},
    }


def train(losses, data_share=0.0):
    return [
        {"images_seen": 100 * (i + 1), "loss": loss, "data_share": data_share}
        for i, loss in enumerate(losses)
    ]


def cell(nfe, members, value, width=0.001):
    calls = nfe * members
    return Cell(
        task="depth",
        sampler="ddim",
        spacing="trailing",
        schedule="cosine",
        nfe=nfe,
        members=members,
        total_calls=calls,
        gflop_per_image=0.1 * calls,
        ms_per_image=2.0 * calls,
        peak_gb=1.0,
        metric="abs_rel",
        value=value,
        lo=value - width,
        hi=value + width,
    )


def run(**parts) -> RunFolder:
    return RunFolder(Path("runs/x"), **parts)


@pytest.mark.parametrize(
    "row, outcome",
    [
        (result(), "beaten"),
        (result(lo=0.6, hi=1.02), "undecided"),
        (result(value=0.31, lo=0.9, hi=1.1), "not beaten"),
        (result(value=0.3, lo=1.0, hi=1.0), "not beaten"),
        (result("amodal", "iou", 0.7, 0.6, lo=1.1, hi=1.2), "beaten"),
        (result("amodal", "iou", 0.7, 0.6, lo=0.98, hi=1.2), "undecided"),
        (result("amodal", "iou", 0.5, 0.6, lo=0.8, hi=0.9), "not beaten"),
        (result(lo=math.nan, hi=math.nan), "beaten"),
        (Result.of(validation(0.2, 100)), "beaten"),
    ],
)
def test_a_baseline_is_beaten_when_the_whole_interval_says_so(row, outcome):
    assert [standing.outcome for standing in standings(row)] == [outcome]


def test_a_baseline_without_the_metric_is_not_compared():
    assert standings(result(other=math.nan)) == []
    assert standings(replace(result(), baselines={"box": {"iou": 0.5}})) == []


def said(*results, sweep=None):
    return [each.text for each in sentences(results, sweep or SweepFolder())]


def test_a_sentence_a_task_says_the_score_and_the_strongest_predictor_that_knows_nothing():
    baselines = {"constant": {"abs_rel": 0.5}, "mean_map": {"abs_rel": 0.3}}
    rows = replace(result(), baselines=baselines), result("flow", "epe", 4.0, 3.5, 1.1, 1.2)
    assert said(*rows) == [
        "AbsRel 0.200, 33% less error than the best trivial predictor, mean map (0.300).",
        "EPE 4.00 px, not better than mean map (3.50).",
    ]
    assert said(result(lo=0.6, hi=1.02)) == [
        "AbsRel 0.200, not clearly better than mean map (0.300)."
    ]
    assert standing_text(rows) == "1 of 2 tasks beat every trivial predictor"


def test_what_could_not_be_measured_is_said_to_be_so():
    assert said(result(value=math.nan)) == ["AbsRel could not be measured."]


def test_a_sentence_says_what_calls_buy_for_sure():
    cells = [cell(1, 1, 0.2), cell(4, 1, 0.15), cell(8, 1, 0.149)]
    gains = {"gain_lo": [None, 0.2, -0.1], "gain_hi": [None, 0.3, 0.1]}
    rows = [
        vars(one) | {name: ends[i] for name, ends in gains.items()} for i, one in enumerate(cells)
    ]
    sweep = SweepFolder(cells=cells, fronts={"depth": {"points": rows}})
    (text,) = said(result(), sweep=sweep)
    more = "more calls (up to 8) bring no significant gain."
    assert text.endswith(f". 4 calls instead of 1 cut the error by 25.0%; {more}")
    rows[1]["gain_lo"] = -0.1
    (text,) = said(result(), sweep=sweep)
    assert text.endswith(". More than 1 call, up to 8, bring no significant gain.")
    (text,) = said(result(), sweep=replace(sweep, fronts={}))  # a table without its images
    assert "calls" not in text


def test_labelled_results_come_second_and_are_never_quoted_without_their_label():
    overfit, honest = result(value=0.01, label="training frames (overfit)"), result(value=0.25)
    assert final_results(run(results=[overfit, honest])) == [honest]
    assert said(overfit)[0].endswith("Note: training frames (overfit).")


def test_before_evaluation_the_newest_validation_counts():
    rows = [validation(0.4, 100), validation(0.2, 300), validation(0.35, 200)]
    assert final_results(run(val=rows))[0].metrics == {"abs_rel": 0.2}


def test_the_fall_of_the_loss_is_that_of_its_last_quarter():
    steady = [math.exp(-i / 100) for i in range(100)]
    assert loss_fall(train(steady)) == pytest.approx(1 - math.exp(-0.24), rel=1e-6)
    assert loss_fall(train([1.0] * 100)) == pytest.approx(0.0, abs=1e-9)
    assert loss_fall(train([1.0, 0.5])) == 0.0 and loss_fall([]) == 0.0


def test_a_falling_loss_asks_for_more_images_and_a_flat_one_does_not():
    falling = [math.exp(-i / 100) for i in range(100)]
    assert "--training.images 20000" in next_steps(run(train=train(falling)))[0]
    assert not any("train longer" in s for s in next_steps(run(train=train([1.0] * 100))))


def test_waiting_for_data_is_reported():
    assert any("waited for data 40%" in s for s in next_steps(run(train=train([1.0] * 9, 0.4))))


def test_an_unbeaten_baseline_names_its_dial():
    lost = [result(value=0.4, lo=1.2, hi=1.4)]
    flat, falling = train([1.0] * 100), train([math.exp(-i / 100) for i in range(100)])
    assert any("larger model" in s for s in next_steps(run(results=lost, train=flat)))
    assert any("longer training" in s for s in next_steps(run(results=lost, train=falling)))


def swept(*points: tuple[int, int, float], gains=(), **changed) -> SweepFolder:
    """A sweep whose frontier has the intervals of `gains`, from point to point."""
    cells = [replace(cell(*point), **changed) for point in points]
    rows = [asdict(one) | {"gain_lo": None, "gain_hi": None} for one in cells]
    for row, (lo, hi) in zip(rows[1:], gains):
        row |= {"gain_lo": lo, "gain_hi": hi}
    return SweepFolder(cells=cells, fronts={"depth": {"points": rows}})


SCORED = replace(result(), nfe=4, members=1)
POINTS = ((1, 1, 0.210), (4, 1, 0.200), (8, 1, 0.190), (8, 2, 0.180))


def test_the_next_point_of_the_frontier_is_offered_with_its_gain():
    sweep = swept(*POINTS, gains=[(0.01, 0.08), (0.03, 0.07), (0.04, 0.06)])
    assert next_steps(run(sweep=sweep, results=[SCORED])) == [
        "depth: 8 calls (8 x 1, T 1) improve AbsRel by 5.0% (95 % interval 3.0% to 7.0%) on "
        "4 calls (4 x 1, T 1): uv run evaluate.py --checkpoint runs/x --task depth --nfe 8 "
        "--members 1 --temperature 1 --views none"
    ]


def test_the_offer_names_how_the_point_samples():
    cells = swept(*POINTS, gains=[(0.01, 0.08), (0.03, 0.07)], temperature=0.0, views="mirror")
    other = replace(cell(1, 8, 0.5), sampler="euler")
    sweep = replace(cells, cells=[*cells.cells, other])
    (step,) = next_steps(run(sweep=sweep, results=[SCORED]))
    assert "8 calls (8 x 1, T 0, mirror views)" in step
    assert step.endswith(
        "--temperature 0 --views mirror --sampler ddim --spacing trailing --schedule cosine"
    )


@pytest.mark.parametrize("ends", [(-0.01, 0.11), (0.0, 0.1)])
def test_a_step_that_may_be_luck_is_not_offered(ends):
    sweep = swept(*POINTS, gains=[(0.01, 0.08), ends, (0.04, 0.06)])
    assert next_steps(run(sweep=sweep, results=[SCORED])) == []


def test_without_the_images_only_a_noticeable_step_is_offered():
    (step,) = next_steps(run(sweep=swept(*POINTS), results=[SCORED]))
    assert "not paired) on" in step
    flat = swept((4, 1, 0.200), (8, 1, 0.199))
    assert next_steps(run(sweep=flat, results=[SCORED])) == []


def test_at_the_end_of_the_frontier_nothing_is_offered():
    sweep = swept(*POINTS, gains=[(0.01, 0.08)] * 3)
    scored = replace(result(), nfe=8, members=2)
    assert next_steps(run(sweep=sweep, results=[scored])) == []
    assert next_steps(run(sweep=sweep, results=[result()])) == [], "of unknown cost"


def test_a_score_that_got_worse_points_at_the_best_checkpoint():
    rows = [validation(v, 100 * i) for i, v in enumerate((0.4, 0.2, 0.3))]
    assert any("better earlier (AbsRel 0.200, now 0.300)" in s for s in next_steps(run(val=rows)))
