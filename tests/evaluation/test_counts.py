"""The columns beside the metrics of an image, of which the pooled metrics of a set are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepsight.evaluation.statistics import counts, measured, per_image, pool
from stepsight.metrics import protocol as protocols
from stepsight.metrics.reduce import reduce

DRAW = torch.Generator().manual_seed(0)


def test_means_over_images_need_none():
    rows = {"n": torch.ones(4), "epe": torch.rand(4, generator=DRAW)}
    assert counts(rows, protocols.get("flow-epe")) == {}


@pytest.mark.parametrize("name", ["pix2gestalt-pooled", "raft-chairs", "raft-kitti"])
def test_weighted_means_need_their_weights(name):
    rule = protocols.get(name)
    weight = torch.arange(5, dtype=torch.float64)
    rows = {metric: torch.rand(5, generator=DRAW).double() for metric in rule.metrics}
    rows |= {"n": weight, "union": 2 * weight, "union_hidden": 3 * weight}
    beside, values = counts(rows, rule), reduce(rows, rule)
    for metric in rule.metrics:
        if rule.averaging == "pooled" or metric in rule.pooled:
            own = beside[{"iou": "union", "iou_hidden": "union_hidden"}.get(metric, "n")]
            assert values[metric] == pytest.approx(np.average(per_image(rows, metric), weights=own))
    assert set(beside) == ({"union", "union_hidden"} if name.startswith("pix2") else {"n"})


def test_class_maps_need_their_intersections_and_unions():
    rule = protocols.get("semantic-miou")
    confusion = torch.randint(0, 9, (6, 3, 3), generator=DRAW).double()
    rows = {"n": confusion.sum((1, 2)), "confusion": confusion}
    beside, values = counts(rows, rule), reduce(rows, rule)
    inner, outer = (
        np.array([beside[f"{part}.{c}"].sum() for c in range(3)])
        for part in ("intersection", "union")
    )
    assert values["miou"] == pytest.approx(np.mean(inner / outer))
    assert values["pixel_accuracy"] == pytest.approx(inner.sum() / beside["n"].sum())


def test_panoptic_quality_needs_its_sums():
    rule = protocols.default_for("panoptic")
    segments = torch.randint(0, 5, (6, 3, 4), generator=DRAW).double()
    rows = {"n": torch.ones(6), "segments": segments, "numbered": torch.ones(6, 3, 2)}
    beside = counts(rows, rule)
    iou, tp, fp, fn = (
        np.array([beside[f"segments.{part}.{c}"].sum() for c in range(3)])
        for part in ("iou", "tp", "fp", "fn")
    )
    assert reduce(rows, rule)["pq"] == pytest.approx(np.mean(iou / (tp + fp / 2 + fn / 2)))


@pytest.mark.parametrize("name", ["semantic-miou", "pix2gestalt-pooled"])
def test_a_pool_scores_many_resamples_as_it_scores_one(name):
    rule = protocols.get(name)
    confusion = torch.randint(1, 9, (6, 3, 3), generator=DRAW).double()
    weight = torch.arange(6, dtype=torch.float64)
    rows = {"n": weight, "confusion": confusion}
    if name != "semantic-miou":
        rows = {"n": weight, "union": weight, "iou": torch.rand(6, generator=DRAW)}
    for metric in set(measured(rows)) & set(rule.metrics):
        found = pool(rows, metric, rule)
        assert found is not None and found.averaging == "pooled"
        flat = found.flat
        sums = np.stack([flat.rows.sum(0), flat.rows[:3].sum(0)])
        values = (
            reduce(rows, rule)[metric],
            reduce({k: v[:3] for k, v in rows.items()}, rule)[metric],
        )
        assert flat.of(sums) == pytest.approx(np.array(values))
