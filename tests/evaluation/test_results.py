"""From rows to results: keys, intervals, ratios, and files that any reader understands."""

from __future__ import annotations

import csv
import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.predictors import Provenance
from stepsight.evaluation.results import (
    completeness,
    metrics_of,
    result,
    sample_rows,
    write_json,
    write_table,
)
from stepsight.evaluation.statistics import interval, per_image
from stepsight.metrics import protocol as protocols
from stepsight.results import Ratio, read_results
from stepsight.scaling.plain import plain

SETTING = (2, 4)
BY_MODEL = Provenance("ddim", "digest")
RECORD = {"scale": 2.26, "images": 64}


def rows_of(values: list[float], name: str = "epe") -> dict[str, torch.Tensor]:
    value = torch.tensor(values, dtype=torch.float64)
    return {"n": torch.isfinite(value).double() * 9, name: value.nan_to_num(0.0)}


def flow_scores(ours: list[float], zero: list[float]) -> Scores:
    keys = [f"image-{i}" for i in range(len(ours))]
    return Scores(
        "flow",
        "scenes",
        "flow-epe",
        keys=keys,
        settings={SETTING: rows_of(ours)},
        baselines={"zero_flow": rows_of(zero)},
        seconds={SETTING: 0.25},
        working=(16, 16),
    )


def confusions(n: int = 12, classes: int = 7) -> dict[str, torch.Tensor]:
    """Images that differ in how much of each class they hold."""
    draw = np.random.default_rng(0)
    counts = draw.poisson(3 * draw.random((n, classes, 1)) * (1 + 9 * np.eye(classes)))
    confusion = torch.tensor(counts, dtype=torch.float64)
    return {"n": confusion.sum((1, 2)), "confusion": confusion}


def test_a_result_says_everything_about_its_numbers():
    draw = np.random.default_rng(1)
    zero = 1 + draw.random(20)
    found = result(
        flow_scores(list(zero / 2), list(zero)), SETTING, replace(BY_MODEL, label="seen")
    )
    assert found.task == "flow" and found.data == "scenes" and found.label == "seen"
    assert found.protocol == protocols.get("flow-epe").id and found.protocol_text
    assert (found.sampler, found.nfe, found.members) == ("ddim", 2, 4)
    assert found.n == 20 and found.size == (16, 16) and found.checkpoint == "digest"
    assert found.metrics == pytest.approx({"epe": zero.mean() / 2, "n_images": 20})
    assert found.baselines["zero_flow"]["epe"] == pytest.approx(zero.mean())
    low, high = found.intervals["epe"]
    assert low < found.metrics["epe"] < high
    ratio = found.ratios["zero_flow"]
    assert ratio.metric == "epe"
    assert [ratio.ratio, ratio.lo, ratio.hi] == pytest.approx([0.5] * 3)  # paired
    assert found.ceiling is None and found.seconds_per_image == 0.25


def test_a_result_tells_temperature_and_whether_its_intervals_are_to_be_believed():
    scores = flow_scores([1.0, 2.0], [2.0, 2.0])
    point = result(scores, SETTING, BY_MODEL)
    assert point.temperature is None and point.calibration is None
    scores.uncertainty[SETTING] = {
        "coverage_90": torch.tensor([0.88, 0.92]), "coverage_90_raw": torch.tensor([0.3, 0.5]),
        "calibration": torch.ones(2, 9, 3), "spread_error": torch.tensor([0.2, 0.4]),
    }  # fmt: skip
    found = result(scores, SETTING, replace(BY_MODEL, temperature=1.0, calibration=RECORD))
    assert found.temperature == 1 and found.columns()["temperature"] == 1
    told = found.calibration
    assert (told["scale"], told["images"], told["verdict"]) == (2.26, 64, "calibrated")
    assert "(raw members: 40.0 %): calibrated" in told["sentence"]
    assert "calibration" not in found.uncertainty and "calibration" not in found.columns()


def test_images_without_truth_are_left_out():
    scores = flow_scores([1.0, math.nan, 3.0], [2.0, math.nan, 6.0])
    for rows in (scores.settings[SETTING], scores.baselines["zero_flow"]):
        rows["epe"] = torch.tensor([v if n else math.nan for v, n in zip(rows["epe"], rows["n"])])
    found = result(scores, SETTING, BY_MODEL)
    assert found.metrics == {"epe": 2.0, "n_images": 2.0}
    assert found.ratios["zero_flow"].ratio == 0.5 and found.n == 3


@pytest.mark.parametrize("metric", ["miou", "pixel_accuracy"])
def test_a_pooled_metric_has_the_interval_of_the_pool(metric):
    rows = confusions()
    found = interval(rows, metric, protocols.get("semantic-miou"))
    assert found.value == pytest.approx(metrics_of(rows, "semantic-miou")[metric])
    assert found.lo < found.value < found.hi and found.n == 12
    pooled = rows["confusion"].sum(0)
    hit = pooled.diagonal()
    by_hand = {
        "miou": float((hit / (pooled.sum(0) + pooled.sum(1) - hit)).mean()),
        "pixel_accuracy": float(hit.sum() / pooled.sum()),
    }
    assert found.value == pytest.approx(by_hand[metric])
    assert found.value != pytest.approx(per_image(rows, metric).mean(), abs=1e-6)


def test_a_ratio_of_pooled_metrics_is_paired():
    rows = confusions()
    scores = Scores(
        "semantic", "scenes", "semantic-miou", keys=[str(i) for i in range(12)],
        settings={SETTING: rows}, baselines={"constant": rows}, seconds={SETTING: 1.0},
    )  # fmt: skip
    found = result(scores, SETTING, BY_MODEL)
    assert found.ratios["constant"] == Ratio(ratio=1, lo=1, hi=1, metric="miou")
    assert set(found.intervals) == {"miou", "pixel_accuracy"}


def test_one_image_has_no_interval():
    found = result(flow_scores([1.0], [2.0]), SETTING, BY_MODEL)
    assert found.intervals == {} and found.metrics["epe"] == 1


def test_what_cannot_be_measured_is_null_in_the_file(tmp_path):
    rows = {name: torch.zeros(3) for name in ("n", "union", "union_hidden")}
    rows |= {name: torch.full((3,), math.nan) for name in ("iou", "iou_hidden", "hidden")}
    scores = Scores(
        "amodal", "scenes", "amodal-iou", keys=list("abc"),
        settings={SETTING: rows}, baselines={"bounding_box": rows}, seconds={SETTING: 1.0},
    )  # fmt: skip
    found = result(scores, SETTING, BY_MODEL)
    assert math.isnan(found.metrics["iou"]) and found.metrics["n_images"] == 0
    write_json(tmp_path / "results.json", [found.to_dict()])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    (read,) = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert read["metrics"]["iou"] is None and read["ratios"]["bounding_box"]["lo"] is None
    assert read["intervals"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    (back,) = read_results(tmp_path / "results.json")
    assert math.isnan(back.metrics["iou"]) and math.isnan(back.ratios["bounding_box"].lo)


def test_results_come_back_from_their_file(tmp_path):
    draw = np.random.default_rng(2)
    found = result(flow_scores([*draw.random(9)], [*draw.random(9)]), SETTING, BY_MODEL)
    write_json(tmp_path / "results.json", [found.to_dict()])
    assert read_results(tmp_path / "results.json") == [found]
    assert read_results(tmp_path / "absent.json") == []


def test_only_numbers_that_json_lacks_become_none():
    value = {"a": [1, math.inf, (0.5, np.float64("nan"))], "b": "nan", "c": None, "d": True}
    assert plain(value) == {"a": [1, None, [0.5, None]], "b": "nan", "c": None, "d": True}


def test_a_table_has_the_columns_of_all_rows(tmp_path):
    write_table(tmp_path / "t.csv", [{"task": "depth", "abs_rel": 0.1}, {"task": "flow", "epe": 2}])
    assert (tmp_path / "t.csv").read_text().split() == ["task,abs_rel,epe", "depth,0.1,", "flow,,2"]


def test_a_result_as_a_flat_row():
    made = replace(BY_MODEL, options={"render": "final"})
    found = result(flow_scores([1.0, 2.0], [2.0, 2.0]), SETTING, made)
    row = found.columns()
    assert row["option.render"] == found.options["render"] == "final"
    assert (row["epe.lo"], row["epe.hi"]) == found.intervals["epe"]
    assert row["epe"] == 1.5 and row["baseline.zero_flow.epe"] == 2 and row["task"] == "flow"
    assert not any(isinstance(value, (dict, list, tuple)) for value in row.values())


def test_one_row_an_image_and_setting(tmp_path):
    scores = flow_scores([1.0, 2.0, 3.0], [2.0] * 3)
    scores.settings[4, 1] = rows_of([3.0, 2.0, 1.0])
    write_table(tmp_path / "per_sample.csv", sample_rows(scores))
    rows = list(csv.DictReader((tmp_path / "per_sample.csv").read_text().splitlines()))
    assert list(rows[0]) == ["task", "data", "protocol", "key", "nfe", "members", "epe"]
    assert [(r["key"], r["nfe"], float(r["epe"])) for r in rows] == [
        ("image-0", "2", 1.0), ("image-1", "2", 2.0), ("image-2", "2", 3.0),
        ("image-0", "4", 3.0), ("image-1", "4", 2.0), ("image-2", "4", 1.0),
    ]  # fmt: skip


def test_rows_of_many_images_take_time_in_proportion():
    n = 2000
    scores = Scores("semantic", "scenes", "semantic-miou", keys=[str(i) for i in range(n)])
    scores.settings[SETTING] = confusions(n)
    began = time.perf_counter()
    assert len(sample_rows(scores)) == n
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("source", "split", "n", "expected", "label"),
    [
        ("hypersim", "test", 7682, 7682, None),
        ("hypersim", "test", 2, 7682, "partial: 2 of 7682"),
        ("hypersim", "val", 2, 7370, "split val, not this protocol's test; partial: 2 of 7370"),
        ("hypersim", "test", 7690, 7682, "not the split of this protocol: 7690 images, not 7682"),
        ("scenes", "eval", 8, None, "not the data of this protocol (hypersim)"),
    ],
)
def test_what_is_said_of_the_images_that_were_scored(source, split, n, expected, label):
    published = {"val": 7370, "test": 7682}.get(split)
    made = Provenance("ddim", "digest", split=split, published=published)
    assert completeness(protocols.get("marigold-hypersim"), source, n, made) == (expected, label)


@pytest.mark.parametrize(
    ("published", "n", "expected", "label"),
    [
        (None, 20, None, None),
        (None, 5, 20, "partial: 5 of 20"),
        (5, 5, 20, "partial: 5 of 20"),
        (654, 5, 654, "partial: 5 of 654"),
    ],
)
def test_a_subset_is_always_called_partial(published, n, expected, label):
    made = Provenance("ddim", "digest", published=published, available=20)
    assert completeness(protocols.get("flow-epe"), "scenes", n, made) == (expected, label)
