"""Samplers against their namesakes in diffusers: same noise, same levels, float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import SAMPLERS, DiffusionSettings
from stepsight.schedule import LEVELS, Schedule, build_schedule

SHAPE = (2, 3, 4, 5)
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # numpy 2, in peers


class Double:
    """torch for a peer that casts to float32: its float32 has 64 bits."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def peer(diffusers, monkeypatch) -> Callable[..., Any]:
    """A scheduler of diffusers by name, computing in float64 on our table of levels."""

    def build(name: str, schedule: Schedule | None = None, **settings):
        scheduler = getattr(diffusers, name)(**settings)
        monkeypatch.setattr(sys.modules[type(scheduler).__module__], "torch", Double())
        if schedule is not None:
            t = torch.arange(1, LEVELS + 1, dtype=torch.float64) / LEVELS
            scheduler.alphas_cumprod = schedule.alpha(t) ** 2
            scheduler.final_alpha_cumprod = scheduler.one = torch.ones((), dtype=torch.float64)
        return scheduler

    return build


def build(name: str) -> Schedule:
    return build_schedule(DiffusionSettings(schedule=name))


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def no_noise(i: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def ours(name: str, schedule: Schedule, curved, times: Tensor, noise=no_noise, eta=0.0) -> Tensor:
    """Our trajectory; the denoiser is told the noise level sigma / (alpha + sigma)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return curved(x, told(schedule, t))

    return SAMPLERS[name](denoise, draw(99), times, schedule=schedule, noise=noise, eta=eta)


def told(schedule: Schedule, t: Tensor) -> float:
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return (sigma / (alpha + sigma)).item()


def theirs(scheduler, schedule: Schedule, curved, times: Tensor, **arguments) -> Tensor:
    """By the peer, which answers in x0; further arguments are functions of the step's number."""
    x = draw(99)
    for i, timestep in enumerate(scheduler.timesteps):
        given = {key: value(i) for key, value in arguments.items()}
        x0 = curved(x, told(schedule, times[i]))
        x = scheduler.step(x0, timestep, x, return_dict=False, **given)[0]
    assert x.dtype == torch.float64
    return x


def agree(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_ddim(peer, curved, name: str, eta: float):
    schedule = build(name)
    scheduler = peer(
        "DDIMScheduler",
        schedule,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(10)
    times = schedule.times(10, "trailing")
    fresh = draw if eta else lambda i: None
    expected = theirs(scheduler, schedule, curved, times, eta=lambda i: eta, variance_noise=fresh)
    agree(ours("ddim", schedule, curved, times, draw, eta), expected)


def test_ancestral_is_ddpm_with_the_same_noise(peer, curved, monkeypatch):
    schedule = build("linear")
    scheduler = peer(
        "DDPMScheduler",
        schedule,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(10)
    times, fresh = schedule.times(10, "trailing"), iter(range(10))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: draw(next(fresh))
    )
    expected = theirs(scheduler, schedule, curved, times)
    # its last step adds noise of deviation 1e-10
    agree(ours("ancestral", schedule, curved, times, draw), expected, 1e-8)


def test_consistency_is_lcm_with_the_same_noise(peer, curved, monkeypatch):
    """But for the peer's boundary weights, 1e-8 off ours at the levels visited here."""
    schedule = build("scaled_linear")
    scheduler = peer("LCMScheduler", schedule, prediction_type="sample")
    scheduler.set_timesteps(timesteps=[999, 759, 499, 259])
    times = torch.tensor([1000, 760, 500, 260, 0], dtype=torch.float64) / LEVELS
    fresh = iter(range(3))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: draw(next(fresh))
    )
    expected = theirs(scheduler, schedule, curved, times)
    agree(ours("consistency", schedule, curved, times, draw), expected, 1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 20])
@pytest.mark.parametrize(
    "name, peer_name, choice",
    [
        ("dpmpp_2m", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
        ("unipc", "UniPCMultistepScheduler", {"solver_type": "bh2"}),
    ],
)
@pytest.mark.parametrize("levels", ["scaled_linear", "linear", "cosine"])
def test_multistep(peer, curved, name: str, peer_name: str, choice, steps: int, levels: str):
    schedule = build(levels)
    scheduler = peer(
        peer_name,
        schedule,
        solver_order=2,
        prediction_type="sample",
        timestep_spacing="trailing",
        **choice,
    )
    scheduler.set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    scheduler.sigmas = schedule.sigma(times) / schedule.alpha(times)
    expected = theirs(scheduler, schedule, curved, times)
    agree(ours(name, schedule, curved, times), expected)


@pytest.mark.parametrize(
    "name, peer_name",
    [("dpmpp_2m", "DPMSolverMultistepScheduler"), ("unipc", "UniPCMultistepScheduler")],
)
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_multistep_on_rectified_flow(peer, curved, name: str, peer_name: str, steps: int):
    schedule = build("rectified_flow")
    # the peer predicts the velocity, and keeps off pure noise by 1e-6
    scheduler = peer(peer_name, prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    times[0] -= 1e-6
    scheduler.sigmas = times
    x = draw(99)
    for t, timestep in zip(times, scheduler.timesteps):
        velocity = (x - curved(x, told(schedule, t))) / t
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    agree(ours(name, schedule, curved, times), x)


@pytest.mark.parametrize("levels", ["scaled_linear", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 25])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_runge_kutta_on_variance_preserving(peer, curved, name: str, steps: int, levels: str):
    """The peer steps y = x / alpha in sigma / alpha, and may ask at each level twice."""
    schedule = build(levels)
    heun = name.startswith("Heun")
    scheduler = peer(name, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    sigmas = schedule.sigma(times) / schedule.alpha(times)
    counts = torch.tensor([1] + [2 if heun else 1] * (steps - 1) + [1])
    scheduler.sigmas = sigmas.repeat_interleave(counts)
    asked = times.repeat_interleave(counts)[:-1]
    y = draw(99) / schedule.alpha(times[0])
    for t, sigma, timestep in zip(asked, scheduler.sigmas, scheduler.timesteps, strict=False):
        x0 = curved(schedule.alpha(t) * y, told(schedule, t))
        y = scheduler.step((y - x0) / sigma, timestep, y, return_dict=False)[0]
    agree(ours("heun" if heun else "euler", schedule, curved, times), y, 1e-8)


@pytest.mark.parametrize(
    "name, peer_name",
    [("euler", "FlowMatchEulerDiscreteScheduler"), ("heun", "FlowMatchHeunDiscreteScheduler")],
)
@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_runge_kutta_on_rectified_flow(peer, curved, name: str, peer_name: str, steps: int):
    schedule = build("rectified_flow")
    scheduler = peer(peer_name)
    scheduler.set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    counts = torch.tensor([1] + [2 if name == "heun" else 1] * (steps - 1) + [1])
    scheduler.sigmas = times.repeat_interleave(counts)
    x = draw(99)
    for t, timestep in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=False):
        velocity = (x - curved(x, t.item())) / t
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    agree(ours(name, schedule, curved, times), x)


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
@pytest.mark.parametrize("levels", ["scaled_linear", "linear"])
def test_karras_levels(peer, levels: str, steps: int):
    schedule = build(levels)
    scheduler = peer("DPMSolverMultistepScheduler", schedule, use_karras_sigmas=True)
    times = schedule.times(steps, "karras")[:-1]
    actual = schedule.sigma(times) / schedule.alpha(times)
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy()
    expected = scheduler._convert_to_karras(np.flip(table), steps)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)
    scheduler.set_timesteps(steps)  # keeps them in float32
    np.testing.assert_allclose(actual.numpy(), scheduler.sigmas[:-1].numpy(), rtol=1e-6)
