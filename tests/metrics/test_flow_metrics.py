"""Flow scores: slow loop, outlier rule, and zero flow on real FlyingChairs pairs."""

import math

import numpy as np
import pytest
import torch

from stepsight.metrics.flow import flow_rows, wauc
from stepsight.metrics.reduce import count_names


@pytest.fixture
def flows(rng, valid, spoiled):
    truth = 40 * torch.randn(3, 2, 5, 7, generator=rng)
    pred = truth + 2 * torch.randn(3, 2, 5, 7, generator=rng)
    both = valid.expand(-1, 2, -1, -1)
    return spoiled(pred, both), spoiled(truth, both)


def test_matches_a_slow_loop(flows, valid):
    pred, truth = flows
    rows = flow_rows(pred, truth, valid)
    for i in range(3):
        errors, outliers = [], []
        for y in range(5):
            for x in range(7):
                if valid[i, 0, y, x]:
                    (pu, pv), (u, v) = pred[i, :, y, x].tolist(), truth[i, :, y, x].tolist()
                    errors.append(math.hypot(pu - u, pv - v))
                    outliers.append(errors[-1] > 3 and errors[-1] > 0.05 * math.hypot(u, v))
        assert rows["n"][i] == len(errors)
        assert rows["epe"][i].item() == pytest.approx(sum(errors) / len(errors))
        assert rows["below_1px"][i].item() == pytest.approx(np.mean([e < 1 for e in errors]))
        assert rows["fl_all"][i].item() == pytest.approx(np.mean(outliers))


@pytest.mark.parametrize(
    "length,error,outlier",
    [(10.0, 2.9, 0), (10.0, 3.1, 1), (100.0, 4.9, 0), (100.0, 5.1, 1)],
)
def test_an_outlier_exceeds_both_limits(length, error, outlier):
    truth = torch.tensor([length, 0.0]).reshape(1, 2, 1, 1)
    pred = torch.tensor([length, error]).reshape(1, 2, 1, 1)
    rows = flow_rows(pred, truth, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert rows["fl_all"].item() == outlier


def test_an_image_without_valid_pixels_is_nan(flows, valid):
    rows = flow_rows(*flows, torch.zeros_like(valid))
    assert not any(rows[k].any() for k in rows.keys() & count_names())
    assert all(rows[k].isnan().all() for k in rows.keys() - count_names())


def test_matched_and_unmatched_pixels_are_scored_apart(flows, valid, rng):
    occluded = torch.rand(valid.shape, generator=rng) < 0.4
    rows = flow_rows(*flows, valid, occluded)
    for part, where in (("matched", ~occluded), ("unmatched", occluded)):
        alone = flow_rows(*flows, valid & where)
        assert torch.equal(rows[f"n_{part}"], alone["n"])
        for name in ("epe", "below_1px", "below_3px", "below_5px", "fl_all", "wauc"):
            assert torch.equal(rows[f"{name}_{part}"], alone[name])


def test_an_error_that_is_a_threshold_of_wauc_does_not_exceed_it():
    """Though float32 of i / 20 may be above i / 20."""
    errors = torch.arange(0, 102, dtype=torch.float32) / 20
    weights = [1 - i / 100 for i in range(100)]
    expected = [100 * sum(weights[max(0, i - 1) :]) / sum(weights) for i in range(102)]
    assert wauc(errors).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name,epe", [("00006", 3.424), ("00018", 21.400), ("00043", 9.915)])
def test_zero_flow_on_flying_chairs(sample, name, epe):
    raw = sample(f"FlyingChairs/data/{name}_flow.flo").read_bytes()
    width, height = np.frombuffer(raw, "<i4", count=2, offset=4)
    field = np.frombuffer(raw, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    truth = torch.from_numpy(field.copy())[None]
    everywhere = torch.ones(1, 1, height, width, dtype=torch.bool)
    rows = flow_rows(torch.zeros_like(truth), truth, everywhere)
    assert rows["epe"].item() == pytest.approx(epe, abs=5e-4)
