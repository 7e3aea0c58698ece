"""Names, directions and the writing of numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from stepsight.errors import UserError
from stepsight.measures import (
    duration,
    headline,
    main_metric,
    measure,
    measures,
    number,
)
from stepsight.metrics.config import Measure
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.results import Result
from stepsight.tasks.config import TABLE, TaskSettings, scored_tasks


@pytest.mark.parametrize("task", sorted(scored_tasks()))
def test_the_main_metric_is_that_of_the_task_and_has_a_direction(task):
    settings = scored_tasks()[task]
    offered = [*measures(), "n_images"]
    assert headline(task, offered) == list(settings.headline)
    assert main_metric(task, offered) == settings().metric
    assert measure(settings().metric).better in ("higher", "lower")


@pytest.mark.parametrize(
    "value, text",
    [
        (0.2314, "0.231"),
        (0.01234, "0.0123"),
        (12.34, "12.3"),
        (1234.5, "1234"),
        (0.0, "0"),
        (-3.5, "-3.50"),
        (9.1e-7, "9.10e-07"),
        (2.5e9, "2.50e+09"),
        (math.nan, "-"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_durations():
    assert [duration(s) for s in (12.34, 72.3, 3720)] == ["12.3s", "1m12s", "1h02m"]


def test_unknown_tasks_and_metrics_still_have_a_name():
    assert main_metric("new", ["n_images", "chamfer_l1"]) == "chamfer_l1"
    assert main_metric("depth", []) is None
    assert measure("chamfer_l1").label == "chamfer l1"
    assert headline("depth", ["rmse", "delta1", "abs_rel"]) == ["abs_rel", "delta1"]


def test_a_metric_that_nobody_declared_is_neither_better_nor_worse():
    for ask in (lambda kind: kind.beats(0.1, 0.2), lambda kind: kind.error(0.1)):
        with pytest.raises(UserError, match="no task declares the metric 'chamfer l1'.*`metrics`"):
            ask(measure("chamfer_l1"))
    with pytest.raises(UserError, match="'coverage of 90 %' ranks nothing"):
        _ = measure("coverage_90").higher_is_better
    assert measure("chamfer_l1").axis == "chamfer l1" and measure("epe").axis.endswith("is better")


@pytest.mark.parametrize(
    "change", [{}, {"better": "lower"}, {"unit": "lux"}, {"power": 2}, {"count": "pixels"}]
)
def test_two_tasks_must_declare_a_metric_alike(monkeypatch, change):
    shared = measure("iou")

    class Other(TaskSettings):
        name = "other"
        metrics = {"iou": replace(shared, **change)}

    monkeypatch.setitem(TABLE, "other", Other)
    if not change:
        assert measure("iou") == shared
        return
    with pytest.raises(UserError, match=f"'iou' has {[*change][0]} .* for task other, and"):
        measure("iou")


@pytest.mark.parametrize(
    "kind, value, error",
    [
        (Measure("x", "lower"), 0.25, 0.25),
        (Measure("x", "higher"), 0.25, 0.75),
        (Measure("-x", "lower", best=-1.0), -0.25, 0.75),
        (Measure("x", "higher", best=100.0), 25.0, 75.0),
        (Measure("PSNR", "higher", best=math.inf), 30.0, -30.0),
        (Measure("NLL", "lower", best=-math.inf), -2.0, -2.0),
    ],
)
def test_errors_count_from_the_best_there_is(kind, value, error):
    assert kind.error(value) == error


def test_better_depends_on_the_direction():
    assert measure("abs_rel").beats(0.1, 0.2) and not measure("iou").beats(0.1, 0.2)
    assert not measure("iou").beats(0.2, 0.2)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("midas", ["above_1.25", "abs_rel"]),
        ("spring", ["above_1px", "epe", "fl_all", "wauc"]),
        ("ade20k", ["miou", "pixel_accuracy", "mean_score"]),
        ("marigold-nyu", ["abs_rel", "delta1", "rmse", "silog"]),
        ("pq", ["pq", "sq", "rq"]),
    ],
)
def test_a_protocol_that_names_its_metrics_is_read_by_them(name, shown):
    rule = PROTOCOLS[name]
    offered = sorted({*rule.metrics, "abs_rel", "pq", "sq", "rq", "n_images"})
    assert headline(rule.task, offered, rule.metrics) == shown
    assert main_metric(rule.task, offered, rule.metrics) == shown[0]
    assert Result(task=rule.task, metric=shown[0], metrics=offered).main == shown[0]
