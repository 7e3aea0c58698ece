"""Normal scores: rotations by known angles, a slow loop, and degenerate vectors."""

import math

import numpy as np
import pytest
import torch

from stepsight.evaluation.statistics import concatenated, measured, per_image, pool
from stepsight.metrics.normals import counted, median_angle, normals_rows
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce


def tilted(degrees):
    """Unit normals "1 3 1 n" turned away from the viewer's axis by the given angles."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.sin(), torch.zeros_like(angle), -angle.cos()])[None, :, None]


def test_known_angles():
    angles = [1e-3, 10.0, 20.0, 29.0, 170.0]
    everywhere = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    rows = normals_rows(tilted(angles), tilted([0.0] * 5), everywhere)
    assert rows["mean_angle"].item() == pytest.approx(sum(angles) / 5, rel=1e-6)
    assert rows["median_angle"].item() == pytest.approx(20)
    shares = [rows[f"below_{limit}"].item() for limit in ("5", "7.5", "11.25", "22.5", "30")]
    assert shares == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.8])
    squares = sum(a**2 for a in angles)
    assert rows["rmse_angle"].item() == pytest.approx(math.sqrt(squares / 5), rel=1e-6)


def test_matches_a_slow_loop_whatever_the_length_and_the_invalid_pixels(rng, valid, spoiled):
    directions = valid.expand(-1, 3, -1, -1)
    pred, truth = (
        spoiled(torch.randn(3, 3, 5, 7, generator=rng), directions).double() for _ in range(2)
    )
    rows = normals_rows(3 * pred, truth, valid)
    for i in range(3):
        angles = []
        for y, x in valid[i, 0].nonzero().tolist():
            p, g = pred[i, :, y, x].tolist(), truth[i, :, y, x].tolist()
            cosine = sum(a * b for a, b in zip(p, g)) / (math.hypot(*p) * math.hypot(*g))
            angles.append(math.degrees(math.acos(cosine)))
        assert rows["n"][i] == len(angles)
        assert rows["mean_angle"][i].item() == pytest.approx(np.mean(angles))
        assert rows["median_angle"][i].item() == pytest.approx(np.median(angles))
        assert rows["below_22.5"][i].item() == pytest.approx(np.mean(np.array(angles) < 22.5))


def test_a_zero_vector_is_not_a_good_guess():
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    rows = normals_rows(torch.zeros(1, 3, 1, 1), tilted([0.0]).float(), everywhere)
    assert rows["mean_angle"].item() == pytest.approx(90)


def test_pixels_of_a_set_are_pooled_with_their_median():
    """Two images whose means and medians, averaged, are other numbers; 120.004 rounds to 120."""
    rows = concatenated(
        [
            normals_rows(tilted(angles), tilted([0.0] * len(angles)), mask, pooled=True)
            for angles, mask in [
                ([4.0, 8.0, 12.0, 16.0], torch.ones(1, 1, 1, 4, dtype=torch.bool)),
                ([120.004, 90.0], torch.tensor([[[[True, False]]]])),
            ]
        ]
    )
    found = reduce(rows, get("dsine"))
    assert found["mean_angle"] == pytest.approx((40 + 120.004) / 5)
    assert found["median_angle"] == pytest.approx(12)
    assert found["rmse_angle"] == pytest.approx(math.sqrt((480 + 120.004**2) / 5))
    assert found["below_7.5"] == pytest.approx(1 / 5)
    assert per_image(rows, "median_angle") == pytest.approx([10, 120])
    pooled = pool(rows, "median_angle", get("dsine"))
    assert pooled is not None and "median_angle" in measured(rows)
    both_twice = 2 * pooled.rows.sum(0, keepdims=True)
    assert pooled.of(both_twice) == pytest.approx(12)


def test_a_pooled_median_is_within_half_a_step_of_the_exact_one(rng):
    angles = 180 * torch.rand(3, 1, 40, 50, generator=rng, dtype=torch.float64) ** 2
    valid = torch.rand(3, 1, 40, 50, generator=rng) < 0.7
    found = median_angle(counted(angles, valid).sum(0)).item()
    assert abs(found - np.median(angles[valid])) <= 0.005
    assert counted(angles, valid).sum(1).tolist() == valid.flatten(1).sum(1).tolist()
    assert median_angle(counted(angles, ~valid & valid)).isnan().all()
    ends = torch.tensor([0.0, 180.0]).double().view(2, 1, 1, 1)
    each = counted(ends, torch.ones(2, 1, 1, 1, dtype=torch.bool))
    assert median_angle(each).tolist() == [0, 180]
