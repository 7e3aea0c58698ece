"""How GeoWizard merges members: depth by all pairs together, normals by the most central one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble import merge_published_normals
from stepsight.ensemble.published import REGULARISER, cost
from stepsight.seeding import generator
from stepsight.tasks.depth import Depth
from stepsight.tasks.normals import Normals


def test_all_pairs_together_have_one_root_of_their_mean_square():
    maps = torch.rand(3, 4, 5, generator=generator("maps"))
    scale, shift = np.array([1.0, 0.7, 1.3]), np.array([0.0, 0.1, -0.2])
    aligned = scale[:, None, None] * maps.numpy() + shift[:, None, None]
    apart = np.stack([aligned[i] - aligned[j] for i, j in ((0, 1), (0, 2), (1, 2))])
    middle = np.median(aligned, axis=0)
    misfit = abs(middle.min()) + abs(1 - middle.max())
    expected = np.sqrt((apart**2).mean()) + REGULARISER * misfit
    parameters = np.concatenate([scale, shift])
    assert cost(parameters, maps, together=True) == pytest.approx(expected, rel=1e-5)
    each = np.sqrt((apart**2).mean(axis=(1, 2))).sum() + REGULARISER * misfit
    assert cost(parameters, maps) == pytest.approx(each, rel=1e-5)


def around(direction: tuple[float, float, float], degrees: float) -> Tensor:
    """Unit vectors "1 3 2 2" that lean to x from a direction."""
    leaning = torch.tensor(direction) + torch.tensor([np.tan(np.radians(degrees)), 0.0, 0.0])
    return F.normalize(leaning, dim=0).float().reshape(1, 3, 1, 1).expand(1, 3, 2, 2)


def test_the_member_nearest_to_the_mean_of_angles_stands_whole():
    members = torch.stack([around((0.0, 1.0, 1.0), angle) for angle in (0.0, 10.0, 14.0)])
    assert torch.equal(merge_published_normals(members), members[1])
    two = torch.cat([members, members.flip(0)], dim=1)  # each picture has its own
    assert torch.equal(merge_published_normals(two), torch.cat([members[1], members[1]]))
    answer = Normals(merge_by="whole").merge(members)
    torch.testing.assert_close(answer.values, members[1])
    assert answer.uncertainty is not None and answer.uncertainty.shape == (1, 1, 2, 2)


def test_filters_that_overshoot_leave_stretched_depth_in_its_range():
    task = Depth(space="linear", low=0.0, high=1.0, stretch=True)
    depth = torch.zeros(1, 1, 8, 8)
    depth[..., 4:] = 1
    finer = task.rescale(depth, (29, 29), "pillow_cubic")
    assert finer.amin() == 0 and finer.amax() == 1 and 0.01 < finer.mean() < 0.99
    free = Depth(space="linear").rescale(depth, (29, 29), "pillow_cubic")
    assert free.amin() < 0 and free.amax() > 1
