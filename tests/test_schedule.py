"""Schedules: exact ends, derivatives, inverses, published tables and the times samplers visit."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, Schedule, build_schedule, named_schedule

NAMES = ["rectified_flow", "linear", "scaled_linear", "cosine"]
PEER_NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
BETAS = {"linear": (1e-4, 2e-2), "scaled_linear": (8.5e-4, 1.2e-2), "cosine": (1e-4, 2e-2)}
SPACINGS = ["trailing", "linspace", "log_snr", "karras"]


def build(name: str, zero_terminal_snr: bool = False) -> Schedule:
    return build_schedule(DiffusionSettings(schedule=name, zero_terminal_snr=zero_terminal_snr))


@pytest.fixture(params=[(name, zero) for name in NAMES for zero in (False, True)], ids=str)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return build(*request.param)


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers")


def peer_ddim(diffusers, name: str, zero: bool, spacing: str = "trailing"):
    start, end = BETAS[name]
    return diffusers.DDIMScheduler(
        beta_start=start,
        beta_end=end,
        beta_schedule=PEER_NAMES[name],
        rescale_betas_zero_snr=zero,
        timestep_spacing=spacing,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clean_end_is_exact(schedule: Schedule, dtype: torch.dtype):
    zero = torch.zeros((), dtype=dtype)
    assert schedule.alpha(zero) == 1 and schedule.sigma(zero) == 0
    assert schedule.log_snr(zero) == math.inf
    assert schedule.alpha(zero).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_zero_terminal_snr_is_exact(name: str, dtype: torch.dtype):
    one, schedule = torch.ones((), dtype=dtype), build(name, zero_terminal_snr=True)
    assert schedule.alpha(one) == 0 and schedule.sigma(one) == 1
    assert schedule.log_snr(one) == -math.inf


def test_derivatives_equal_autograd(schedule: Schedule):
    t = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = t.clamp(1e-3, 1 - 1e-9).requires_grad_()
    for function, derivative in (
        (schedule.alpha, schedule.d_alpha),
        (schedule.sigma, schedule.d_sigma),
    ):
        (expected,) = torch.autograd.grad(function(t).sum(), t)
        torch.testing.assert_close(derivative(t), expected, rtol=1e-9, atol=1e-9)


def test_derivatives_equal_finite_differences(schedule: Schedule):
    t = torch.linspace(0.0105, 0.9905, 50, dtype=torch.float64)  # between levels
    h = 1e-6
    for function, derivative in (
        (schedule.alpha, schedule.d_alpha),
        (schedule.sigma, schedule.d_sigma),
    ):
        expected = (function(t + h) - function(t - h)) / (2 * h)
        torch.testing.assert_close(derivative(t), expected, rtol=1e-6, atol=1e-7)


def test_derivative_is_continuous_over_levels(schedule: Schedule):
    level = torch.arange(1, LEVELS, dtype=torch.float64) / LEVELS
    before, after = schedule.d_sigma(level - 1e-9), schedule.d_sigma(level + 1e-9)
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_noise_grows_strictly(schedule: Schedule):
    t = torch.linspace(0, 1, 5001, dtype=torch.float64)
    assert (schedule.log_snr(t).diff() < 0).all()


def test_velocity_has_unit_determinant(schedule: Schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    p, q = schedule.velocity(t)
    determinant = schedule.alpha(t) * q - schedule.sigma(t) * p
    torch.testing.assert_close(determinant, torch.ones_like(t))


def test_velocity_points_along_the_derivative(schedule: Schedule):
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    p, q = schedule.velocity(t)
    torch.testing.assert_close(p * schedule.d_sigma(t), q * schedule.d_alpha(t))


def test_log_snr_round_trip(schedule: Schedule):
    t = torch.linspace(1e-4, 0.9999, 333, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_of_log_snr(schedule.log_snr(t)), t)


def test_log_snr_out_of_reach_gives_the_ends(schedule: Schedule):
    ends = schedule.time_of_log_snr(torch.tensor([math.inf, -math.inf], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_gpu_ready_shapes_and_dtypes(schedule: Schedule):
    t = torch.rand(2, 3)
    for function in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.log_snr):
        assert function(t).shape == (2, 3) and function(t).dtype == torch.float32


def test_rectified_flow_is_a_straight_line():
    schedule, t = build("rectified_flow"), torch.tensor([0.0, 0.25, 1.0])
    assert schedule.alpha(t).tolist() == [1.0, 0.75, 0.0]
    assert schedule.sigma(t).tolist() == [0.0, 0.25, 1.0]
    assert schedule.condition(t).tolist() == [0.0, 250.0, 1000.0]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", PEER_NAMES)
def test_levels_equal_diffusers(diffusers, name: str, zero: bool):
    alphas_bar = peer_ddim(diffusers, name, zero).alphas_cumprod.double()
    t = torch.arange(1, LEVELS + 1, dtype=torch.float64) / LEVELS
    # the peer multiplies 1000 float32 numbers
    torch.testing.assert_close(build(name, zero).alpha(t) ** 2, alphas_bar, rtol=2e-5, atol=1e-6)


def test_condition_is_the_level_index():
    schedule = build("scaled_linear")
    assert schedule.condition(schedule.times(1000, "trailing")[:-1]).tolist() == list(
        range(999, -1, -1)
    )
    assert schedule.condition(torch.tensor(0.0125)).item() == pytest.approx(11.5)


def test_condition_has_one_value_per_time_in_float32(schedule: Schedule):
    assert schedule.condition(torch.rand(5, dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_times_fall_strictly_from_one_to_zero(schedule: Schedule, steps: int, spacing):
    times = schedule.times(steps, spacing)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()


@pytest.mark.parametrize(
    "spacing, counts",
    [
        ("trailing", range(1, LEVELS + 1)),
        ("linspace", range(2, 101)),  # for one step the peer visits its cleanest level
    ],
)
def test_times_equal_diffusers(diffusers, spacing, counts: range):
    schedule, peer = build("linear"), peer_ddim(diffusers, "linear", False, spacing)
    different = []
    for steps in counts:
        peer.set_timesteps(steps)
        visited = schedule.condition(schedule.times(steps, spacing)[:-1]).round().long()
        # for some counts the peer's last, superfluous level is -1
        if not torch.equal(visited, peer.timesteps[:steps]):
            different.append(steps)
    assert different == []


def test_trailing_visits_the_published_levels():
    schedule = build("scaled_linear", zero_terminal_snr=True)
    visited = [schedule.condition(schedule.times(n, "trailing"))[:-1].tolist() for n in (1, 4)]
    assert visited == [[999.0], [999.0, 749.0, 499.0, 249.0]]


def test_log_snr_spacing_is_even():
    schedule = build("linear")
    gaps = schedule.log_snr(schedule.times(20, "log_snr")[:-1]).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps))


@pytest.mark.parametrize("offset", [0, 1])
def test_leading_times_equal_diffusers(diffusers, offset: int):
    schedule = build("scaled_linear")
    peer = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=offset)
    different = []
    for steps in range(1, LEVELS):
        peer.set_timesteps(steps)
        times = schedule.times(steps, "leading", offset=offset)
        if not torch.equal(schedule.condition(times[:-1]).round().long(), peer.timesteps):
            different.append(steps)
        assert (times.diff() < 0).all() and times[-1] == 0
    assert different == []


def test_karras_spacing_is_even_in_the_seventh_root():
    schedule = build("linear")
    times = schedule.times(20, "karras")[:-1]
    gaps = (schedule.sigma(times) / schedule.alpha(times)).pow(1 / 7).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps))
    assert times[0] == 1 and times[-1].item() == pytest.approx(1 / LEVELS)


def test_custom_times_are_visited():
    times = build("rectified_flow").times(3, "custom", custom=(1.0, 0.7, 0.2))
    assert times.tolist() == [1.0, 0.7, 0.2, 0.0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("start", [0.9, 0.5, 0.01])
def test_a_later_start_begins_there(schedule: Schedule, spacing, start: float):
    times = schedule.times(7, spacing, start=start)
    assert times[0] == start and times[-1] == 0 and (times.diff() < 0).all()


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_a_later_start_keeps_the_proportions(spacing):
    schedule = build("linear")
    whole, part = (schedule.times(7, spacing, start=start) for start in (1.0, 0.3))
    torch.testing.assert_close(part, 0.3 * whole)


@pytest.mark.parametrize("start, final", [(0, "clean"), (1.1, "clean"), (0.001, "first_level")])
def test_a_start_outside_the_walk_is_refused(start: float, final):
    with pytest.raises(UserError, match=f"Cannot sample from time {start}"):
        build("linear").times(4, "trailing", final=final, start=start)


def test_coordinates_carry_data_and_noise(schedule: Schedule):
    """x0 is y at r = 0, and y moves on a straight line where x0 and eps stay."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    scale, r = schedule.coordinates(t)
    torch.testing.assert_close(scale * r, schedule.sigma(t))
    assert scale[0] == 1 and r[0] == 0 and r.isfinite().all() and (r.diff() > 0).all()
    kept = schedule.alpha(t) / scale  # of x0 in y: 1, or what r leaves
    assert torch.allclose(kept, torch.ones_like(r)) or torch.allclose(kept, 1 - r)
    torch.testing.assert_close(schedule.time_of_coordinate(r[1:]), t[1:])


def test_schedules_have_full_names():
    assert named_schedule("cosine_zero_snr") == build("cosine", True)
    assert named_schedule("cosine") == build("cosine")
    assert named_schedule("rectified_flow") == build("rectified_flow")
    with pytest.raises(UserError, match="'linear_zero_sn'.*'linear_zero_snr'"):
        named_schedule("linear_zero_sn")


def test_leading_visits_the_published_levels():
    schedule = build("scaled_linear")
    visited = schedule.condition(schedule.times(10, "leading", offset=1)[:-1])
    assert visited.tolist() == [float(level) for level in range(901, 0, -100)]


@pytest.mark.parametrize(
    "steps, offset, choice", [(1000, 1, "0 to 0"), (10, -1, "0 to 99"), (10, 100, "0 to 99")]
)
def test_levels_that_do_not_exist_are_refused(steps: int, offset: int, choice: str):
    with pytest.raises(UserError, match=f"diffusion.steps_offset.*Choose an offset from {choice},"):
        build("linear").times(steps, "leading", offset=offset)


@pytest.mark.parametrize("spacing", [*SPACINGS, "leading"])
@pytest.mark.parametrize("steps", [2, 10, 333, 1000])
@pytest.mark.parametrize("name", PEER_NAMES)
def test_the_first_level_ends_the_walk_once(name: str, spacing, steps: int):
    """It comes twice only where it is the last visit already."""
    schedule = build(name)
    clean = schedule.times(steps, spacing, offset=0)
    times = schedule.times(steps, spacing, offset=0, final="first_level")
    torch.testing.assert_close(times[:-1], clean[:-1], rtol=0, atol=1e-15)
    assert times[-1] == 1 / LEVELS and (times[:-1].diff() < 0).all() and times[-2] >= times[-1]
    repeated = (times[-2] - times[-1]).item() < 1e-15
    assert repeated == (spacing != "trailing" or steps == LEVELS)


@pytest.mark.parametrize("choice", [{"spacing": "leading"}, {"final": "first_level"}])
def test_levels_of_a_continuous_schedule_are_refused(choice):
    with pytest.raises(UserError, match="diffusion.schedule.*Choose spacing 'trailing'"):
        build("rectified_flow").times(4, **{"spacing": "trailing", **choice})


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_steps_are_refused(schedule: Schedule, steps: int):
    with pytest.raises(UserError, match=f"in {steps} steps"):
        schedule.times(steps, "trailing")


def test_zero_terminal_snr_keeps_the_first_level():
    t = torch.tensor(1 / LEVELS, dtype=torch.float64)
    torch.testing.assert_close(build("linear", True).alpha(t), build("linear").alpha(t))


def test_cosine_betas_are_capped():
    t = torch.tensor([(LEVELS - 1) / LEVELS, 1.0], dtype=torch.float64)
    before, last = build("cosine").alpha(t).square().tolist()
    assert 1 - last / before == pytest.approx(0.999)


def test_unknown_schedule_is_named():
    with pytest.raises(UserError, match="'cosin'.*'cosine'"):
        build("cosin")


def test_schedules_compare_by_value():
    assert build("linear") == build("linear") != build("linear", True)
    assert np.unique([hash(build(name)) for name in NAMES]).size == len(NAMES)
