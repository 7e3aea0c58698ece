"""Names, directions and the writing of numbers."""

from __future__ import annotations

import importlib
import math

import pytest

from stepsight.measures import (
    HEADLINE,
    duration,
    headline,
    main_metric,
    main_of,
    measure,
    number,
)
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.tasks.config import TABLE


@pytest.mark.parametrize("task", sorted(TABLE))
def test_the_main_metric_and_its_direction_are_those_of_the_task(task):
    module, name = TABLE[task].implementation.split(":")
    implemented = getattr(importlib.import_module(module), name)
    assert HEADLINE[task][0] == implemented.metric
    assert measure(implemented.metric).higher_is_better == implemented.higher_is_better


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
    assert main_of({"task": rule.task, "metric": shown[0], "metrics": offered}) == shown[0]
