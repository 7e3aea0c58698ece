"""Averaging rules: what differs between them, what must not, and what is left out."""

import math
from dataclasses import replace

import pytest
import torch

from stepsight.measures import measure
from stepsight.metrics.depth import depth_rows
from stepsight.metrics.flow import flow_rows
from stepsight.metrics.masks.segmentation import semantic_rows
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.metrics.reduce import reduce

METRIC = PROTOCOLS["depth-metric"]
PER_IMAGE, POOLED = RULES = (
    replace(METRIC, averaging="per_image"),
    replace(METRIC, averaging="pooled"),
)


def concatenated(parts):
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_by_hand():
    rows = {"n": torch.tensor([1.0, 3.0, 0.0]), "epe": torch.tensor([2.0, 6.0, torch.nan])}
    assert reduce(rows, PER_IMAGE) == {"epe": 4.0, "n_images": 2.0}
    assert reduce(rows, POOLED) == {"epe": 5.0, "n_images": 2.0}


def test_root_mean_squares_pool_as_squares():
    rows = {"n": torch.tensor([1.0, 3.0]), "rmse": torch.tensor([1.0, 3.0])}
    assert reduce(rows, PER_IMAGE)["rmse"] == 2
    assert reduce(rows, POOLED)["rmse"] == pytest.approx(math.sqrt((1 + 3 * 9) / 4))


def test_pooled_is_the_score_of_all_pixels_as_one_image(depths, valid):
    pooled = reduce(depth_rows(*depths, valid, METRIC), POOLED)
    as_one = [x.movedim(0, 1).reshape(1, 1, 15, 7) for x in (*depths, valid)]
    one = reduce(depth_rows(*as_one, METRIC), PER_IMAGE)
    for name in pooled.keys() - {"n_images"}:
        assert pooled[name] == pytest.approx(one[name]), name
    left_out = one.keys() - pooled.keys()
    assert left_out == {"silog", "silog_half", "edge_f1"}
    assert not any(measure(name).pools for name in left_out)


def test_the_two_rules_differ_only_with_the_number_of_valid_pixels(depths, valid):
    sparse = reduce(depth_rows(*depths, valid, METRIC), PER_IMAGE)
    assert sparse["abs_rel"] != reduce(depth_rows(*depths, valid, METRIC), POOLED)["abs_rel"]
    full = [torch.where(valid, x, 3.0) for x in depths]
    dense = depth_rows(*full, torch.ones_like(valid), METRIC)
    assert reduce(dense, PER_IMAGE)["abs_rel"] == pytest.approx(reduce(dense, POOLED)["abs_rel"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.averaging)
@pytest.mark.parametrize("cuts", [(1, 2), (2, 1), (1, 1, 1)])
def test_uneven_batches_give_what_one_batch_gives(depths, valid, rng, rule, cuts):
    flow = torch.randn(2, 3, 2, 5, 7, generator=rng)
    labels = torch.randint(0, 4, (2, 3, 5, 7), generator=rng)
    scorers = [
        lambda i: depth_rows(depths[0][i], depths[1][i], valid[i], PROTOCOLS["depth-affine-log"]),
        lambda i: flow_rows(flow[0, i], flow[1, i], valid[i]),
        lambda i: semantic_rows(labels[0, i], labels[1, i], 4),
    ]
    for score in scorers:
        parts = concatenated([score(i) for i in torch.arange(3).split(list(cuts))])
        whole = reduce(score(torch.arange(3)), rule)
        assert reduce(parts, rule) == pytest.approx(whole, nan_ok=True)


def test_a_measured_nan_is_not_hidden():
    rows = {"n": torch.tensor([5.0, 5.0]), "epe": torch.tensor([1.0, torch.nan])}
    assert math.isnan(reduce(rows, PER_IMAGE)["epe"])
    assert math.isnan(reduce(rows, POOLED)["epe"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.averaging)
def test_a_set_with_nothing_to_measure(rule):
    rows = {"n": torch.zeros(2), "epe": torch.full((2,), torch.nan)}
    found = reduce(rows, rule)
    assert found["n_images"] == 0 and math.isnan(found["epe"])
