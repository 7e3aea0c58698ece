"""Depth scores: slow loops, invariances, and the floor of a constant on real depth maps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.metrics.depth import depth_rows
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.metrics.reduce import reduce

METRIC, AFFINE, AFFINE_LOG = (
    PROTOCOLS[name] for name in ("depth-metric", "depth-affine", "depth-affine-log")
)


def slow_scores(pred, truth, valid):
    """One image, pixel by pixel, in Python floats."""
    pairs = [
        (float(p), float(g))
        for p, g, v in zip(pred.flatten(), truth.flatten(), valid.flatten())
        if v
    ]
    n = len(pairs)
    logs = [math.log(p) - math.log(g) for p, g in pairs]
    mean = sum(logs) / n
    return {
        "n": n,
        "abs_rel": sum(abs(p - g) / g for p, g in pairs) / n,
        "delta1": sum(max(p / g, g / p) < 1.25 for p, g in pairs) / n,
        "delta2": sum(max(p / g, g / p) < 1.5625 for p, g in pairs) / n,
        "rmse": math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "log10": sum(abs(math.log10(p) - math.log10(g)) for p, g in pairs) / n,
        "silog": 100 * math.sqrt(sum(e * e for e in logs) / n - mean**2),
    }


def test_matches_a_slow_loop(depths, valid):
    rows = depth_rows(*depths, valid, METRIC)
    for i in range(3):
        for name, expected in slow_scores(depths[0][i], depths[1][i], valid[i]).items():
            assert rows[name][i].item() == pytest.approx(expected, rel=1e-9), name


def test_rows_are_float64_one_an_image(depths, valid):
    for name, row in depth_rows(*depths, valid, AFFINE_LOG).items():
        assert row.shape == (3,) and row.dtype == torch.float64, name


@pytest.mark.parametrize("protocol", [METRIC, AFFINE, AFFINE_LOG], ids=lambda p: p.name)
def test_invalid_pixels_are_never_looked_at(depths, valid, protocol):
    clean = [torch.where(valid, x, 5.0) for x in depths]
    torch.testing.assert_close(
        depth_rows(*depths, valid, protocol),
        depth_rows(*clean, valid, protocol),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def test_log_alignment_forgets_factor_and_exponent(depths, valid):
    pred, truth = (x.double() for x in depths)
    torch.testing.assert_close(
        depth_rows(0.3 * pred**1.7, truth, valid, AFFINE_LOG),
        depth_rows(pred, truth, valid, AFFINE_LOG),
        equal_nan=True,
    )


def test_silog_forgets_a_factor_and_metric_scores_do_not(depths, valid):
    pred, truth = depths
    once, twice = (depth_rows(k * pred, truth, valid, METRIC) for k in (1, 2))
    torch.testing.assert_close(once["silog"], twice["silog"])
    assert (once["abs_rel"] != twice["abs_rel"]).all()


def test_a_perfect_prediction(depths, valid):
    rows = depth_rows(depths[1], depths[1], valid, AFFINE)
    for name, best in {"abs_rel": 0, "rmse": 0, "silog": 0, "delta1": 1, "delta2": 1}.items():
        torch.testing.assert_close(rows[name], torch.full((3,), float(best)).double())


def test_delta_is_strict():
    truth = torch.full((1, 1, 1, 2), 4.0)
    pred = torch.tensor([[[[5.0, 4.9]]]])  # 5 / 4 is exactly 1.25
    rows = depth_rows(pred, truth, torch.ones_like(truth, dtype=torch.bool), METRIC)
    assert rows["delta1"].item() == 0.5


def test_truth_outside_the_range_is_left_out_and_predictions_are_clipped():
    protocol = replace(METRIC, min_depth=1.0, max_depth=10.0)
    truth = torch.tensor([[[[0.5, 2.0, 8.0, 11.0]]]])
    pred = torch.tensor([[[[9.0, -3.0, 99.0, 9.0]]]])
    rows = depth_rows(pred, truth, torch.ones_like(truth, dtype=torch.bool), protocol)
    assert rows["n"].item() == 2
    assert rows["abs_rel"].item() == pytest.approx((0.5 + 0.25) / 2)


def test_an_image_without_valid_pixels_is_nan_and_changes_no_mean(depths, valid):
    emptied = valid.clone()
    emptied[1] = False
    rows = depth_rows(*depths, emptied, AFFINE_LOG)
    others = depth_rows(*(x[[0, 2]] for x in depths), valid[[0, 2]], AFFINE_LOG)
    assert rows["n"][1] == 0 and rows["abs_rel"][1].isnan()
    assert reduce(rows, METRIC) == pytest.approx(reduce(others, METRIC), nan_ok=True)
    assert reduce(rows, METRIC)["n_images"] == 2


@pytest.mark.parametrize(
    "name,abs_rel,delta1",
    [
        ("ai_015_004/depth_plane_cam_00_fr0002.png", 0.4588, 0.306),
        ("ai_044_003/depth_plane_cam_01_fr0063.png", 0.4293, 0.203),
    ],
)
def test_floor_of_a_constant_on_hypersim(sample, name, abs_rel, delta1):
    path = sample(f"hypersim/val/{name}")
    truth = torch.from_numpy(np.array(Image.open(path), dtype=np.float32))[None, None] / 1000
    rows = depth_rows(torch.ones_like(truth), truth, truth > 0, AFFINE)
    assert rows["abs_rel"].item() == pytest.approx(abs_rel, abs=5e-5)
    assert rows["delta1"].item() == pytest.approx(delta1, abs=5e-4)
