"""Samplers: against their namesakes in diffusers, exact solutions, and their stated cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.samplers import SAMPLERS, nfe, steps_for
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, Schedule, build_schedule

DETERMINISTIC = ["ddim", "euler", "heun", "dpmpp_2m"]
SHAPE = (2, 3, 4, 5)
PEER_WARNS = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # numpy 2, in peers


def build(name: str, zero_terminal_snr: bool = False) -> Schedule:
    return build_schedule(DiffusionSettings(schedule=name, zero_terminal_snr=zero_terminal_snr))


def draw(i: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(i))


def no_noise(i: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def run(name: str, denoise, x: Tensor, times: Tensor, schedule: Schedule, eta: float = 0.0):
    noise = draw if name == "ancestral" or eta > 0 else no_noise
    return SAMPLERS[name](denoise, x, times, schedule=schedule, noise=noise, eta=eta)


def share_levels(peer, schedule: Schedule):
    """Give the peer our float64 table in place of its float32 one."""
    t = torch.arange(1, LEVELS + 1, dtype=torch.float64) / LEVELS
    peer.alphas_cumprod = schedule.alpha(t) ** 2
    peer.final_alpha_cumprod = peer.one = torch.ones((), dtype=torch.float64)
    return peer


def ours(name: str, schedule: Schedule, curved, steps: int, eta: float = 0.0) -> Tensor:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return curved(x, schedule.condition(t).item() / LEVELS)

    times = schedule.times(steps, "trailing")
    return run(name, denoise, draw(99), times, schedule, eta)


def theirs(peer, curved, x: Tensor, **step_arguments) -> Tensor:
    """Walk the peer; the further arguments of its steps are functions of the step's number."""
    for i, timestep in enumerate(peer.timesteps):
        x0 = curved(x, timestep.item() / LEVELS)
        arguments = {key: value(i) for key, value in step_arguments.items()}
        x = peer.step(x0, timestep, x, return_dict=False, **arguments)[0]
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_ddim_equals_diffusers(diffusers, curved, name: str, eta: float):
    schedule = build(name)
    peer = diffusers.DDIMScheduler(
        prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    share_levels(peer, schedule).set_timesteps(10)
    expected = theirs(
        peer,
        curved,
        draw(99),
        eta=lambda i: eta,
        variance_noise=draw if eta else lambda i: None,
    )
    torch.testing.assert_close(ours("ddim", schedule, curved, 10, eta), expected)


def test_ancestral_equals_ddpm_of_diffusers(diffusers, curved, monkeypatch):
    schedule = build("linear")
    peer = diffusers.DDPMScheduler(
        prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    share_levels(peer, schedule).set_timesteps(10)
    fresh = iter(range(10))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: draw(next(fresh))
    )
    expected = theirs(peer, curved, draw(99))
    # its last step adds noise of deviation 1e-10
    torch.testing.assert_close(
        ours("ancestral", schedule, curved, 10), expected, rtol=1e-7, atol=1e-9
    )


@PEER_WARNS
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 20])
def test_dpmpp_2m_equals_diffusers(diffusers, curved, steps: int):
    schedule = build("scaled_linear")
    peer = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    share_levels(peer, schedule).set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    peer.sigmas = schedule.sigma(times) / schedule.alpha(times)
    expected = theirs(peer, curved, draw(99))
    actual = ours("dpmpp_2m", schedule, curved, steps)
    # the peer works in float32
    torch.testing.assert_close(actual, expected.double(), rtol=1e-5, atol=1e-5)


@PEER_WARNS
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_equals_diffusers_on_variance_preserving(diffusers, curved, steps: int):
    schedule = build("scaled_linear")
    peer = diffusers.EulerDiscreteScheduler(prediction_type="sample", timestep_spacing="trailing")
    peer.set_timesteps(steps)
    times = schedule.times(steps, "trailing")
    alpha = schedule.alpha(times)
    peer.sigmas = schedule.sigma(times) / alpha
    x = draw(99) / alpha[0]
    for i, timestep in enumerate(peer.timesteps):
        x0 = curved(x * alpha[i], timestep.item() / LEVELS)
        x = peer.step(x0, timestep, x, return_dict=False)[0].double()
    torch.testing.assert_close(ours("euler", schedule, curved, steps), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, peer_name",
    [("euler", "FlowMatchEulerDiscreteScheduler"), ("heun", "FlowMatchHeunDiscreteScheduler")],
)
@pytest.mark.parametrize("steps", [2, 4, 10])
def test_rectified_flow_equals_diffusers(diffusers, curved, name: str, peer_name: str, steps: int):
    schedule = build("rectified_flow")
    peer = getattr(diffusers, peer_name)()
    peer.set_timesteps(steps)
    trailing = schedule.times(steps, "trailing")
    stages = 2 if name == "heun" else 1
    visited = [trailing[0], *[t for t in trailing[1:-1] for _ in range(stages)], trailing[-1]]
    peer.sigmas = torch.stack(visited)
    x = draw(99)
    for t, timestep in zip(peer.sigmas[:-1], peer.timesteps):
        velocity = (x - curved(x, t.item())) / t
        x = peer.step(velocity, timestep, x, return_dict=False)[0].double()
    torch.testing.assert_close(ours(name, schedule, curved, steps), x, rtol=1e-5, atol=1e-5)


def interior(schedule: Schedule, steps: int) -> Tensor:
    """Times evenly apart in log SNR, away from both ends, and a vanishing last step: of first order
    in every sampler, it must not hide the order of the others."""
    even = torch.linspace(-4, 4, steps + 1, dtype=torch.float64)
    return schedule.time_of_log_snr(torch.cat([even, even[-1:] + 1e-9]))


def error(name: str, data, times: Tensor) -> float:
    quantiles = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 1, 9)
    end = run(name, data.denoise, data.at(quantiles, times[0]), times, data.schedule)
    return (end - data.at(quantiles, times[-1])).abs().max().item()


@pytest.mark.parametrize("schedule", ["rectified_flow", "cosine"])
@pytest.mark.parametrize("name, order", [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(gaussian, schedule: str, name: str, order: int):
    data = gaussian(build(schedule))
    errors = [error(name, data, interior(data.schedule, steps)) for steps in (64, 128, 256)]
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name, order", [("ddim", 1), ("heun", 2)])
def test_order_from_noise_to_data(gaussian, name: str, order: int):
    data = gaussian(build("rectified_flow"))
    errors = [error(name, data, data.schedule.times(n, "trailing")) for n in (32, 64)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("schedule", ["rectified_flow", "linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_many_steps_reach_the_exact_sample(gaussian, name: str, schedule: str, zero: bool):
    data = gaussian(build(schedule, zero))
    assert error(name, data, data.schedule.times(200, "log_snr")) < 0.03


@pytest.mark.parametrize("name, eta", [("ancestral", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_stochastic_samplers_reach_the_distribution(gaussian, name: str, eta: float):
    data = gaussian(build("rectified_flow"))

    def noise(i: int) -> Tensor:
        return torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(i)).double()

    x = SAMPLERS[name](
        data.denoise,
        noise(1000),
        data.schedule.times(100, "trailing"),
        schedule=data.schedule,
        noise=noise,
        eta=eta,
    )
    assert x.mean().item() == pytest.approx(data.mean, abs=0.03)
    assert x.std().item() == pytest.approx(data.std, abs=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "log_snr"])
@pytest.mark.parametrize(
    "schedule, zero", [("rectified_flow", False), ("linear", True), ("linear", False)]
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_finite_at_both_ends(curved, name: str, schedule: str, zero: bool, spacing, dtype):
    path = build(schedule, zero)
    for steps in (1, 2, 3, 30):
        x = SAMPLERS[name](
            lambda x, t: curved(x, t.item()),
            draw(0, dtype),
            path.times(steps, spacing),
            schedule=path,
            noise=lambda i: draw(i, dtype),
        )
        assert x.isfinite().all() and x.dtype == dtype


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", ["rectified_flow", "linear"])
def test_one_step_returns_the_denoiser_s_answer(name: str, schedule: str):
    path, answer = build(schedule), draw(5)
    x = run(name, lambda x, t: answer, draw(0), path.times(1, "trailing"), path)
    torch.testing.assert_close(x, answer)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_cost_is_the_calls_made(name: str, steps: int):
    path, calls = build("rectified_flow"), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return 0.5 * x

    run(name, denoise, draw(0), path.times(steps, "trailing"), path)
    assert len(calls) == nfe(name, steps)
    assert steps_for(name, len(calls)) == steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_cost_does_not_depend_on_where_the_walk_ends(curved, name: str):
    path, calls = build("linear"), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return curved(x, t.item())

    times = path.times(5, "leading", offset=1, final="first_level")
    x = run(name, denoise, draw(0), times, path)
    assert len(calls) == nfe(name, 5) and x.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_repeated_last_level_moves_nothing(curved, name: str):
    path = build("linear")
    times = path.times(4, "leading", offset=0, final="first_level")
    assert times[-2] == times[-1]

    def stay(x: Tensor, t: Tensor) -> Tensor:
        return curved(x, t.item())

    settled = draw(3)
    at_rest = run(name, stay, settled, times[-2:], path)
    torch.testing.assert_close(at_rest, settled)


@pytest.mark.parametrize(
    "name, calls, choice",
    [("heun", 4, "3 or 5"), ("heun", 2, "1 or 3"), ("heun", 0, "1"), ("ddim", 0, "1")],
)
def test_cost_out_of_reach_names_the_nearest(name: str, calls: int, choice: str):
    with pytest.raises(UserError, match=f"exactly {calls} model calls. Choose {choice}\\."):
        steps_for(name, calls)


def test_unknown_sampler_is_named():
    with pytest.raises(UserError, match="'dimm'.*'ddim'"):
        nfe("dimm", 3)
