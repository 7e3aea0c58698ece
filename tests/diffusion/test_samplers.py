"""Samplers: against exact solutions, their order, and their stated cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import SAMPLERS, DiffusionSettings, nfe, steps_for
from stepsight.errors import UserError
from stepsight.schedule import Schedule, build_schedule

DETERMINISTIC = ["ddim", "euler", "heun", "midpoint", "dpmpp_2m", "unipc"]
RANDOM = ["ancestral", "ancestral_large", "consistency"]
PLAIN = set(SAMPLERS) - {"ancestral_learned"}  # whose `denoise` answers a variance as well
SHAPE = (2, 3, 4, 5)


def build(name: str, zero_terminal_snr: bool = False) -> Schedule:
    return build_schedule(DiffusionSettings(schedule=name, zero_terminal_snr=zero_terminal_snr))


def draw(i: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(i))


def no_noise(i: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def run(name: str, denoise, x: Tensor, times: Tensor, schedule: Schedule, eta: float = 0.0):
    noise = draw if name in RANDOM or eta > 0 else no_noise
    return SAMPLERS[name](denoise, x, times, schedule=schedule, noise=noise, eta=eta)


def interior(schedule: Schedule, steps: int) -> Tensor:
    """Times evenly apart in log SNR, away from both ends, and a vanishing last step: of first order
    in every sampler, it must not hide the order of the others."""
    even = torch.linspace(-4, 4, steps + 1, dtype=torch.float64)
    return schedule.time_of_log_snr(torch.cat([even, even[-1:] + 1e-9]))


def error(name: str, data, times: Tensor) -> float:
    quantiles = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 1, 9)
    end = run(name, data.denoise, data.at(quantiles, times[0]), times, data.schedule)
    return (end - data.at(quantiles, times[-1])).abs().max().item()


# UniPC's corrector adds an order (Zhao et al. 2023, theorem 3.1). The midpoint method is of order
# 2; on a Gaussian, whose solutions are hyperbolas in r, its leading error vanishes.
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}


@pytest.mark.parametrize("schedule", ["rectified_flow", "cosine"])
@pytest.mark.parametrize("name, order", [*ORDERS.items(), ("midpoint", 3)])
def test_order_of_convergence(gaussian, schedule: str, name: str, order: int):
    data = gaussian(build(schedule))
    errors = [error(name, data, interior(data.schedule, steps)) for steps in (64, 128, 256)]
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    "name, order", [("ddim", 1), ("euler", 1), ("heun", 2), ("midpoint", 3), ("unipc", 2)]
)
def test_order_from_noise_to_data(gaussian, name: str, order: int):
    data = gaussian(build("rectified_flow"))
    errors = [error(name, data, data.schedule.times(n, "trailing")) for n in (32, 64)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("schedule", ["rectified_flow", "cosine"])
@pytest.mark.parametrize("name, order", [*ORDERS.items(), ("midpoint", 2)])
def test_order_on_two_modes(schedule: str, name: str, order: int):
    """Data near -1 and near 1: the posterior mean is known, the solution from 512 fine steps."""
    path, x = build(schedule), torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 1, 9)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = (0.5 * alpha) ** 2 + sigma**2
        mode = torch.tanh(alpha * x / variance)  # posterior mean of the mode
        return mode + 0.25 * alpha / variance * (x - alpha * mode)

    def sampled(name: str, steps: int) -> Tensor:
        return run(name, denoise, x, interior(path, steps), path)

    exact = sampled("unipc", 512)
    coarse, fine = ((sampled(name, n) - exact).abs().max().item() for n in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


def test_runge_kutta_in_coordinates_of_the_schedule(gaussian):
    """Heun and midpoint, written out in y = x / scale and r."""
    data = gaussian(build("linear", zero_terminal_snr=True))
    path = data.schedule
    times = path.times(5, "trailing")
    scale, r = path.coordinates(times)

    def slope(y: Tensor, r: Tensor) -> Tensor:
        t = path.time_of_coordinate(r)
        x0 = data.denoise(path.coordinates(t)[0] * y, t)
        return (y - x0) / r

    heun = midpoint = draw(0) / scale[0]
    for i in range(5):
        step, first = r[i + 1] - r[i], slope(heun, r[i])
        second = slope(heun + step * first, r[i + 1]) if i < 4 else first
        heun = heun + step * (first + second) / 2
        half = midpoint + step / 2 * slope(midpoint, r[i])
        midpoint = midpoint + step * slope(half, r[i] + step / 2)
    for name, y in (("heun", heun), ("midpoint", midpoint)):
        torch.testing.assert_close(run(name, data.denoise, draw(0), times, path), scale[-1] * y)


def test_consistency_keeps_nothing_but_the_answer():
    """Every level is reached from the last answer and fresh noise; the last answer is returned."""
    path, asked = build("linear"), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return torch.full_like(x, float(len(asked)))

    times = path.times(3, "trailing", final="first_level")
    x = run("consistency", denoise, draw(99), times, path)
    alpha, sigma = path.alpha(times), path.sigma(times)
    for i in (1, 2):
        torch.testing.assert_close(asked[i], i * alpha[i] + sigma[i] * draw(i - 1))
    assert len(asked) == 3 and (x == 3).all()


@pytest.mark.parametrize("name", ["heun", "midpoint", "unipc", "dpmpp_2m"])
def test_a_start_of_nearly_pure_noise_is_walked_in_float32(curved, name: str):
    """The cosine schedule starts at sigma / alpha = 2e4: nothing that large may cancel."""
    path, results = build("cosine"), []
    times = path.times(20, "log_snr")
    for dtype in (torch.float32, torch.float64):

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return 0.5 * x.roll(1, dims=-1) + t.item()

        results.append(run(name, denoise, draw(0).to(dtype), times, path).double())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


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
@pytest.mark.parametrize("name", sorted(PLAIN))
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


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("schedule", ["rectified_flow", "linear"])
def test_one_step_returns_the_denoiser_s_answer(name: str, schedule: str):
    path, answer = build(schedule), draw(5)
    x = run(name, lambda x, t: answer, draw(0), path.times(1, "trailing"), path)
    torch.testing.assert_close(x, answer)


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_cost_is_the_calls_made(name: str, steps: int):
    path, calls = build("rectified_flow"), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return 0.5 * x

    run(name, denoise, draw(0), path.times(steps, "trailing"), path)
    assert len(calls) == nfe(name, steps)
    assert steps_for(name, len(calls)) == steps


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_cost_does_not_depend_on_where_the_walk_ends(curved, name: str):
    path, calls = build("linear"), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return curved(x, t.item())

    times = path.times(5, "leading", offset=1, final="first_level")
    x = run(name, denoise, draw(0), times, path)
    assert len(calls) == nfe(name, 5) and x.isfinite().all()


@pytest.mark.parametrize("name", sorted(PLAIN - {"consistency"}))
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
    [
        ("heun", 4, "3 or 5"),
        ("heun", 2, "1 or 3"),
        ("heun", 0, "1"),
        ("midpoint", 5, "4 or 6"),
        ("midpoint", 1, "2"),
        ("ddim", 0, "1"),
        ("ddim", -3, "1"),
    ],
)
def test_cost_out_of_reach_names_the_nearest(name: str, calls: int, choice: str):
    with pytest.raises(UserError, match=f"exactly {calls} model calls. Choose {choice}\\."):
        steps_for(name, calls)


def test_unknown_sampler_is_named():
    with pytest.raises(UserError, match="'dimm'.*'ddim'"):
        nfe("dimm", 3)
