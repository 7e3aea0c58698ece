"""Edge strength and its correlation, against closed forms."""

from __future__ import annotations

import torch

from stepsight.metrics.masks.contours import correlation, edge_strength


def test_the_slope_of_a_plane_is_its_edge_strength():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    plane = (3 * x + 4 * y)[None, None]
    inner = edge_strength(plane)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 5.0))
    both = edge_strength(torch.cat([plane, plane], dim=1))
    torch.testing.assert_close(both, edge_strength(plane) * 2**0.5)


def test_correlation_forgets_scale_and_shift():
    a = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(correlation(a, 3 * a - 7), torch.ones(2).double())
    torch.testing.assert_close(correlation(a, -a), -torch.ones(2).double())
    assert correlation(a, torch.ones_like(a)).tolist() == [0.0, 0.0]
