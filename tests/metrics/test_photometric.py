"""Warping, photometric error and forward-backward consistency, against closed forms."""

from __future__ import annotations

import pytest
import torch

from stepsight.metrics.photometric import inconsistency, photometric_error, warped


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def constant(u: float, v: float, size: tuple[int, int] = (8, 10)) -> torch.Tensor:
    return torch.tensor([u, v])[None, :, None, None].expand(1, 2, *size).contiguous()


def test_whole_pixels_are_fetched_exactly(rng):
    second = torch.rand(1, 3, 8, 10, generator=rng)
    fetched = warped(second, constant(2.0, -1.0))
    torch.testing.assert_close(fetched[..., 1:, :-2], second[..., :-1, 2:], rtol=0, atol=1e-5)


def test_halves_are_interpolated_and_beyond_the_frame_is_its_edge():
    ramp = torch.arange(10.0).expand(1, 1, 8, 10)
    fetched = warped(ramp, constant(0.5, 0.0))
    torch.testing.assert_close(fetched[..., :-1], ramp[..., :-1] + 0.5)
    torch.testing.assert_close(warped(ramp, constant(50.0, 0.0)), torch.full_like(ramp, 9.0))


def test_the_true_flow_explains_the_second_frame(rng):
    first = torch.rand(1, 3, 8, 10, generator=rng).repeat(2, 1, 1, 1)
    second = first.roll((1, 3), dims=(-2, -1))
    flows = torch.cat([constant(3.0, 1.0), constant(0.0, 0.0)])
    inside = warped(second, flows)[:1, :, :-1, :-3]
    torch.testing.assert_close(inside, first[:1, :, :-1, :-3], rtol=0, atol=1e-5)
    right, wrong = photometric_error(first, second, flows)
    assert right < wrong
    assert photometric_error(first, first, 0 * flows).tolist() == pytest.approx(
        [0.0, 0.0], abs=1e-6
    )


def test_there_and_back():
    there = constant(1.5, -2.0)
    assert inconsistency(there, -there).item() == pytest.approx(0.0, abs=1e-6)
    assert inconsistency(there, there).item() == pytest.approx(5.0)  # 2 |(1.5, -2)|


def test_the_way_back_is_read_where_the_vector_ends():
    there = torch.zeros(1, 2, 1, 6)
    there[0, 0, 0, 1] = 3.0
    back = torch.zeros(1, 2, 1, 6)
    back[0, 0, 0, 4] = -3.0  # of the pixel that (1, 0) moves to; its own neighbour stays
    assert inconsistency(there, back).item() == pytest.approx(3 / 6)  # pixel 4 of frame 1 alone
