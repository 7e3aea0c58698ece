"""Normal scores: rotations by known angles, a slow loop, and degenerate vectors."""

import math

import numpy as np
import pytest
import torch

from stepsight.metrics.normals import normals_rows


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
    shares = [rows[f"below_{limit}"].item() for limit in ("11.25", "22.5", "30")]
    assert shares == pytest.approx([0.4, 0.6, 0.8])


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
