"""Flow protocols: WAUC and parts against slow loops, what is pooled, and the seed's fit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stepsight.metrics.flow import flow_rows, wauc
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce
from stepsight.tasks.table import score
from stepsight.types import Batch


@pytest.fixture
def pairs(rng, valid, spoiled):
    """Prediction, truth, occlusion: lengths on both sides of 10 and 40 px."""
    truth = 30 * torch.randn(3, 2, 5, 7, generator=rng)
    pred = truth + 2 * torch.randn(3, 2, 5, 7, generator=rng)
    occluded = torch.rand(3, 1, 5, 7, generator=rng) < 0.4
    both = valid.expand(-1, 2, -1, -1)
    return spoiled(pred, both), spoiled(truth, both), occluded


def batch_of(truth, valid, occluded=None):
    keys = [str(i) for i in range(len(truth))]
    image = torch.zeros(len(truth), 3, *truth.shape[-2:])
    return Batch(image, keys, ["toy"] * len(keys), flow=truth, flow_valid=valid, occluded=occluded)


def pixels(pred, truth, valid):
    """(error, true length) of every valid pixel of each image."""
    found = []
    for p, g, v in zip(pred.double(), truth.double(), valid[:, 0]):
        diff, g = (p - g)[:, v].numpy(), g[:, v].numpy()
        found.append((np.hypot(*diff), np.hypot(*g)))
    return found


def test_wauc_is_the_weighted_sum_over_thresholds(rng):
    error = 8 * torch.rand(1, 1, 20, 20, generator=rng, dtype=torch.float64)
    error[0, 0, 0, :3] = torch.tensor([0.0, 5.0, 5.01])
    weights = [1 - (i - 1) / 100 for i in range(1, 101)]
    for e, found in zip(error.flatten().tolist(), wauc(error).flatten().tolist()):
        hit = sum(w for i, w in enumerate(weights, 1) if e <= i / 20)
        assert found == pytest.approx(100 * hit / sum(weights)), e


def test_parts_match_a_slow_loop(pairs, valid):
    pred, truth, occluded = pairs
    rows = flow_rows(pred, truth, valid, occluded)
    for i, (error, length) in enumerate(pixels(pred, truth, valid)):
        hidden = occluded[i, 0][valid[i, 0]].numpy()
        parts = {
            "matched": ~hidden,
            "unmatched": hidden,
            "s0_10": length < 10,
            "s10_40": (length >= 10) & (length < 40),
            "s40": length >= 40,
        }
        for name, part in parts.items():
            assert rows[f"n_{name}"][i] == part.sum()
            expected = error[part].mean() if part.any() else math.nan
            assert rows[f"epe_{name}"][i].item() == pytest.approx(expected, nan_ok=True), name
        assert rows["below_3px"][i].item() == pytest.approx(np.mean(error < 3))
        assert rows["above_1px"][i].item() == pytest.approx(np.mean(error > 1))


def test_angle_of_the_space_time_direction():
    truth = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    rows = flow_rows(torch.zeros_like(truth), truth, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert rows["aae"].item() == pytest.approx(45)  # (0, 0, 1) against (1, 0, 1)


def test_sintel_pools_parts_by_their_own_pixels_and_needs_occlusion_for_two(pairs, valid):
    pred, truth, occluded = pairs
    row = get("sintel")
    found = reduce(score(pred, batch_of(truth, valid, occluded), row), row)
    hidden = np.concatenate([o[v].numpy() for o, v in zip(occluded[:, 0], valid[:, 0])])
    error = np.concatenate([e for e, _ in pixels(pred, truth, valid)])
    assert found["epe_unmatched"] == pytest.approx(error[hidden].mean())
    assert found["epe"] == pytest.approx(error.mean())
    blind = reduce(score(pred, batch_of(truth, valid), row), row)
    assert math.isnan(blind["epe_matched"]) and blind["epe_s40"] == found["epe_s40"]


def test_raft_pools_chairs_and_the_outliers_of_kitti_but_not_its_epe(pairs, valid):
    pred, truth, _ = pairs
    batch, per_image = batch_of(truth, valid), pixels(pred, truth, valid)
    error, length = (np.concatenate(x) for x in zip(*per_image))
    means = np.mean([e.mean() for e, _ in per_image])
    outlier = (error > 3) & (error / length > 0.05)

    def scores(name):
        return reduce(score(pred, batch, get(name)), get(name))

    assert scores("raft-chairs") == pytest.approx({"epe": error.mean(), "n_images": 3})
    assert scores("raft-kitti") == pytest.approx(
        {"epe": means, "fl_all": outlier.mean(), "n_images": 3}
    )
    ptlflow = [np.mean((e > 3) & (e / n > 0.05)) for e, n in per_image]
    assert scores("ptlflow")["fl_all"] == pytest.approx(np.mean(ptlflow))
    assert scores("ptlflow")["fl_all"] != pytest.approx(outlier.mean())


def test_things_leaves_out_fast_pixels(pairs, valid):
    pred, truth, _ = pairs
    row = replace(get("raft-things"), max_flow=30.0)
    found = reduce(score(pred, batch_of(truth, valid), row), row)
    error, length = (np.concatenate(x) for x in zip(*pixels(pred, truth, valid)))
    assert found["epe"] == pytest.approx(error[length < 30].mean())


def test_the_seeds_fit_forgives_sign_scale_and_offset_of_each_axis(pairs, valid):
    _, truth, _ = pairs
    row = get("seed-release-per-axis-affine-flow-fit")
    wrong = (
        truth * torch.tensor([-0.01, 7.0])[:, None, None] + torch.tensor([5, -90.0])[:, None, None]
    )
    found = reduce(score(wrong, batch_of(truth, valid), row), row)
    assert found["epe"] < 1e-4 and found.keys() == {"epe", "epe_units", "n_images"}
    assert reduce(score(wrong, batch_of(truth, valid), get("flow-epe")), row)["epe"] > 50
    constant = score(torch.zeros_like(truth), batch_of(truth, valid), row)
    for i, (u, v) in enumerate(t[:, ok].double().numpy() for t, ok in zip(truth, valid[:, 0])):
        expected = np.hypot(u - u.mean(), v - v.mean()).mean()
        assert constant["epe"][i].item() == pytest.approx(expected)
        assert constant["epe_units"][i].item() == pytest.approx(expected / 75)


@pytest.mark.parametrize(
    "name,zero,mean", [("00006", 3.42, 5.57), ("00018", 21.40, 10.82), ("00043", 9.92, 8.68)]
)
def test_zero_flow_on_the_chairs_samples_before_and_after_the_fit(sample, name, zero, mean):
    """After the fit a constant scores like the mean flow, in two of three cases better."""
    raw = sample(f"FlyingChairs/data/{name}_flow.flo").read_bytes()
    width, height = np.frombuffer(raw, "<i4", count=2, offset=4)
    field = np.frombuffer(raw, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    truth = torch.from_numpy(field.copy())[None]
    batch = batch_of(truth, torch.ones(1, 1, height, width, dtype=torch.bool))
    for protocol, expected in (
        ("raft-chairs", zero),
        ("flow-epe", zero),
        ("seed-release-per-axis-affine-flow-fit", mean),
    ):
        rows = score(torch.zeros_like(truth), batch, get(protocol))
        assert reduce(rows, get(protocol))["epe"] == pytest.approx(expected, abs=0.006), protocol
