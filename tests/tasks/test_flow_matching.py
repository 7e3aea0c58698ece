"""What flow is given to match two frames: volumes once, and what is left over at every call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.matching import cost_volume, mean_costs
from stepsight.seeding import generator
from stepsight.tasks.flow import Flow
from stepsight.types import Batch


def batch_of(first: Tensor, second: Tensor) -> Batch:
    keys = [f"key{row}" for row in range(len(first))]
    return Batch(first, keys, ["toys"] * len(first), second=second)


def test_matching_is_by_scores_of_both_windows_and_by_costs():
    first, second = 2 * torch.rand(2, 2, 3, 16, 24, generator=generator("pairs")) - 1
    task = Flow()
    found = task.condition(batch_of(first, second)).features
    assert found is not None and found.shape == (2, task.feature_channels, 8, 12)
    wide, fine, costs = found.chunk(3, dim=1)
    options: dict[str, Any] = {
        "radius": task.radius,
        "stride": task.stride,
        "sharpness": task.sharpness,
    }
    torch.testing.assert_close(wide, cost_volume(first, second, window=task.window, **options))
    torch.testing.assert_close(fine, cost_volume(first, second, window=task.fine_window, **options))
    (mean,) = mean_costs(first, second, [task.window], stride=task.stride, radius=task.radius)
    torch.testing.assert_close(costs, 4 * mean)
    volume = Flow(costs=False, fine_window=0).condition(batch_of(first, second)).features
    assert volume is not None
    torch.testing.assert_close(volume, wide)


def frames(moved: tuple[int, int], size: tuple[int, int] = (24, 32)) -> Tensor:
    """Two frames "1 6 h w" of one texture that moves by whole pixels to the right and down."""
    high, wide, (right, down) = size[0] + 16, size[1] + 16, moved
    texture = 2 * torch.rand(1, 3, high, wide, generator=generator("texture")) - 1
    first = texture[..., 8 : 8 + size[0], 8 : 8 + size[1]]
    second = texture[..., 8 - down : 8 - down + size[0], 8 - right : 8 - right + size[1]]
    return torch.cat([first, second], dim=1)


def constant(task: Flow, moved: tuple[int, int], size: tuple[int, int] = (24, 32)) -> Tensor:
    """The target of such a motion."""
    flow = torch.tensor(moved, dtype=torch.float32).reshape(1, 2, 1, 1).expand(1, 2, *size)
    valid = torch.ones_like(flow[:, :1], dtype=torch.bool)
    batch = Batch(torch.zeros(1, 3, *size), ["a"], ["toys"], flow=flow, flow_valid=valid)
    return task.encode(batch).x


INNER = (..., slice(4, -4), slice(4, -4))  # whose shifts and windows stay within the frames


@pytest.mark.parametrize("moved", [(0, 0), (3, -2), (-4, 1)])
@pytest.mark.parametrize("options", [{}, {"scale": 75.0, "grid": (384, 512)}], ids=str)
def test_the_true_flow_leaves_nothing_over(options, moved):
    task = Flow(**options)
    found = task.look_at(constant(task, moved), frames(moved))
    assert found.shape == (1, task.look_channels, 12, 16)
    left, fit = F.pixel_shuffle(found, 2)[INNER].split([3, task.look_channels // 4 - 3], dim=1)
    assert left.abs().max() < 1e-4
    centre = (2 * task.look_radius + 1) ** 2 // 2
    assert (fit.argmax(dim=1) == centre).all() and fit[:, centre].mean() > 3.5  # of a sum of 4


@pytest.mark.parametrize("missing", [(2, 0), (0, -1), (-2, 2)])
def test_a_wrong_flow_sees_where_to_go(missing):
    """The volume about the estimate points to what is missing, in pixels."""
    task, moved = Flow(), (3, -2)
    told = (moved[0] - missing[0], moved[1] - missing[1])
    found = task.look_at(constant(task, told), frames(moved))
    side = 2 * task.look_radius + 1
    dx, dy = (part + task.look_radius for part in missing)
    left, fit = F.pixel_shuffle(found, 2).split([3, side**2], dim=1)
    assert (fit[INNER].argmax(dim=1) == dy * side + dx).float().mean() > 0.95
    assert left[INNER].abs().mean() > 0.3
    torch.testing.assert_close(fit.sum(dim=1), torch.full((1, 24, 32), 4.0))


def test_what_is_left_over_is_the_warped_frame_less_the_first():
    task, both = Flow(), frames((5, 5))
    x = constant(task, (2, 1))
    left = task.look_at(x, both)[:, :12]
    expected = both[:, 3:, 1:, 2:] - both[:, :3, :-1, :-2]
    found = F.pixel_shuffle(left, 2)[..., :-1, :-2]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_looking_is_optional_and_needs_both_components():
    assert Flow().look_channels == 4 * (3 + 25)
    assert Flow(look_radius=1).look_channels == 4 * (3 + 9)
    assert Flow(look=False).look_channels == Flow(components="separate").look_channels == 0


def test_surplus_channels_are_not_looked_at():
    task, both = Flow(), frames((1, 1))
    x = constant(task, (1, 0))
    wide = torch.cat([x, torch.full_like(x, 9.0)], dim=1)
    assert torch.equal(task.look_at(wide, both), task.look_at(x, both))
