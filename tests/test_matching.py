"""The cost volume: known shifts peak at the documented channel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.matching import cost_volume, mean_costs, scores


def frames(u: int, v: int, side: int = 48, margin: int = 12) -> tuple[Tensor, Tensor]:
    """Two views "2 3 h w" of random texture; what is at (x, y) moves to (x + u, y + v)."""
    size = side + 2 * margin
    texture = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def view(dx: int, dy: int) -> Tensor:
        return texture[..., margin - dy : margin - dy + side, margin - dx : margin - dx + side]

    return view(0, 0), view(u, v)


def expected_flow(volume: Tensor, radius: int, stride: int) -> Tensor:
    """Mean shift in pixels, (u, v) "b 2 h w"."""
    share = volume / volume.sum(dim=1, keepdim=True)
    reach = stride * torch.arange(-radius, radius + 1.0)
    share = share.unflatten(1, (len(reach), len(reach)))  # dy, then dx
    u = torch.einsum("b i j h w, j -> b h w", share, reach)
    v = torch.einsum("b i j h w, i -> b h w", share, reach)
    return torch.stack([u, v], dim=1)


@pytest.mark.parametrize("u, v", [(0, 0), (2, 0), (0, 2), (-4, 6), (8, -8)])
def test_a_known_shift_peaks_at_its_channel(u: int, v: int):
    volume = cost_volume(*frames(u, v))
    channel = (v // 2 + 4) * 9 + u // 2 + 4
    assert volume.shape == (2, 81, 24, 24)
    assert (volume.argmax(dim=1)[:, 6:-6, 6:-6] == channel).all()


@pytest.mark.parametrize("u, v", [(0, 0), (4, -2), (-6, 6), (8, 8)])
def test_default_sharpness_recovers_the_flow(u: int, v: int):
    flow = expected_flow(cost_volume(*frames(u, v)), radius=4, stride=2)[..., 6:-6, 6:-6]
    error = (flow - torch.tensor([u, v])[:, None, None]).norm(dim=1).mean()
    assert error < 0.25  # pixels


def test_scores_sum_to_the_gain():
    volume = cost_volume(*frames(2, 2), gain=4.0)
    torch.testing.assert_close(volume.sum(dim=1), torch.full((2, 24, 24), 4.0))


def test_plain_frames_share_the_score():
    plain = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(cost_volume(plain, plain), torch.full((1, 81, 8, 8), 4 / 81))


@pytest.mark.parametrize("stride, radius, window", [(1, 2, 3), (2, 1, 5), (4, 3, 1)])
def test_equals_a_slow_loop(stride: int, radius: int, window: int):
    first, second = (frame[:1, :, :24, :32] for frame in frames(1, 2))
    volume = cost_volume(first, second, stride=stride, radius=radius, window=window)
    a, b = (torch.nn.functional.avg_pool2d((f + 1) / 2, stride)[0] for f in (first, second))
    _, h, w = a.shape
    reach = range(-radius, radius + 1)

    def cost(y: int, x: int, dy: int, dx: int) -> Tensor:
        y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
        there = b[:, min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)]
        return (a[:, y, x] - there).abs().sum()

    box = range(-(window // 2), window // 2 + 1)
    for y, x in ((0, 0), (h // 2, w // 2), (h - 1, 1)):
        costs = [
            torch.stack([cost(y + i, x + j, dy, dx) for i in box for j in box]).mean()
            for dy in reach
            for dx in reach
        ]
        expected = 4 * torch.stack(costs).mul(-20).softmax(dim=0)
        torch.testing.assert_close(volume[0, :, y, x], expected, rtol=1e-4, atol=1e-5)


def test_several_windows_share_the_differences():
    """Each as by itself; scores are the softmax of the negative costs."""
    first, second = frames(2, -2)
    for window, costs in zip(
        (7, 3, 1), mean_costs(first, second, (7, 3, 1), radius=2), strict=True
    ):
        (alone,) = mean_costs(first, second, [window], radius=2)
        assert torch.equal(costs, alone) and costs.min() >= 0 and costs.max() <= 3
        volume = cost_volume(first, second, radius=2, window=window, sharpness=9.0)
        torch.testing.assert_close(scores(costs, sharpness=9.0), volume)


def test_images_of_a_batch_are_matched_alone():
    first, second = frames(2, -2)
    together = cost_volume(first, second)
    torch.testing.assert_close(together[1:], cost_volume(first[1:], second[1:]), rtol=0, atol=0)


def test_inputs_are_left_alone():
    first, second = frames(0, 0)
    before = first.clone(), second.clone()
    cost_volume(first, second, stride=1)
    assert torch.equal(first, before[0]) and torch.equal(second, before[1])
