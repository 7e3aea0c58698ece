"""Ancestral sampling with the forward step's variance, and with a learned one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import SAMPLERS, DiffusionSettings, resampled
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, build_schedule
from stepsight.types import ModelInputs

SHAPE = (2, 3, 4, 5)
SCHEDULES = ["linear", "cosine", "rectified_flow"]


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def walked(name: str, schedule: str, v: float | None = None, steps: int = 6) -> Tensor:
    """A sample of a toy network; v: its learned variance."""
    path = build_schedule(DiffusionSettings(schedule=schedule))  # type: ignore[arg-type]

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        x0 = torch.tanh(x * (1 - t / 2))
        return x0 if v is None else torch.cat([x0, torch.full_like(x0, v)], dim=1)

    times = path.times(steps, "linspace" if schedule != "rectified_flow" else "trailing")
    return SAMPLERS[name](denoise, draw(99), times, schedule=path, noise=draw)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_learned_variance_lies_between_the_posterior_s_and_the_forward_step_s(schedule: str):
    low, high = walked("ancestral", schedule), walked("ancestral_large", schedule)
    torch.testing.assert_close(walked("ancestral_learned", schedule, -1.0), low)
    torch.testing.assert_close(walked("ancestral_learned", schedule, 1.0), high)
    assert not torch.allclose(low, high, atol=1e-4)


def test_one_step_s_variances_are_those_of_the_table_of_betas():
    """Of the level 500 to 499: beta is the table's, and v = 0 is the geometric mean."""
    path = build_schedule(DiffusionSettings(schedule="linear"))
    times = torch.tensor([501, 500], dtype=torch.float64) / LEVELS
    beta = 1e-4 + (2e-2 - 1e-4) * 500 / 999
    before, now = path.alpha(times[1]).item() ** 2, path.alpha(times[0]).item() ** 2
    posterior = beta * (1 - before) / (1 - now)
    expected = {"ancestral_large": beta, "ancestral": posterior}
    expected["ancestral_learned"] = (beta * posterior) ** 0.5
    x = draw(0)
    for name, variance in expected.items():
        wide = 2 if name == "ancestral_learned" else 1

        def zeros(x: Tensor, t: Tensor, wide: int = wide) -> Tensor:
            return torch.zeros_like(x).repeat(1, wide, 1, 1)

        still, moved = (
            SAMPLERS[name](zeros, x, times, schedule=path, noise=drawn)
            for drawn in (lambda i: torch.zeros_like(x), lambda i: torch.ones_like(x))
        )
        assert (moved - still).square().mean().item() == pytest.approx(variance, rel=1e-9)


def test_the_network_s_own_variance_is_read():
    settings = DiffusionSettings(
        schedule="linear", prediction="eps", sampling_shift=1.0, sampler="ancestral_learned"
    )
    diffusion = Diffusion(settings)
    coded = ModelInputs(None, draw(0)[:, :0], None, None, torch.zeros(2, dtype=torch.int64))

    def net(x: Tensor, *_: Tensor, v: float = -1.0, **__: object) -> Tensor:
        return torch.cat([x / 2, torch.full_like(x, v)], dim=1)

    found = diffusion.sample(diffusion.denoiser(net, coded), draw, 5)
    plain = Diffusion(resampled(settings, sampler="ancestral"))
    torch.testing.assert_close(found, plain.sample(plain.denoiser(net, coded), draw, 5))
    other = diffusion.denoiser(lambda *given, **more: net(*given, v=0.5, **more), coded)
    assert not torch.allclose(found, diffusion.sample(other, draw, 5))


def test_a_network_without_a_variance_is_refused():
    diffusion = Diffusion(
        DiffusionSettings(schedule="linear", sampling_shift=1.0, sampler="ancestral_learned")
    )
    coded = ModelInputs(None, draw(0)[:, :0], None, None, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="answers no variance"):
        diffusion.sample(diffusion.denoiser(lambda x, *_, **__: x, coded), draw, 2)


def test_one_call_has_no_variance_to_read():
    with pytest.raises(UserError, match="ancestral_learned.*end_to_end"):
        Diffusion(DiffusionSettings(sampler="ancestral_learned", objective="end_to_end"))


@pytest.mark.parametrize("steps", [1, 2, 10, 21, 250, 1000])
def test_respaced_levels_add_up_the_distance_between_them(steps: int):
    """As published, in the order of its additions: else 21 steps visit 500, not 499."""
    levels, place = [], 0.0
    for _ in range(steps):
        levels.append(round(place))
        place += 999 / max(steps - 1, 1)
    path = build_schedule(DiffusionSettings(schedule="linear"))
    found = (path.times(steps, "respaced")[:-1] * LEVELS - 1).tolist()
    assert found == pytest.approx([999.0] if steps == 1 else levels[::-1], abs=1e-9)
