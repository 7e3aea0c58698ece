"""Times visited: for every number of steps, spacing and schedule; other schedules' levels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from stepsight.diffusion.config import DiffusionSettings, resampled
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.times import shifted, visited_times
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, build_schedule, named_schedule

TRAINED = ["rectified_flow", "linear", "scaled_linear_zero_snr", "cosine"]
NAMES = [
    "rectified_flow",
    *(base + end for base in ("linear", "scaled_linear", "cosine") for end in ("", "_zero_snr")),
]
FAST = ["trailing", "linspace", "leading", "custom"]  # needs no search for a noise level
SOME = [1, 2, 3, 4, 7, 10, 50, 333, 1000]


def model(name: str, **others) -> DiffusionSettings:
    base = name.removesuffix("_zero_snr")
    settings = {"sampling_shift": 1.0, **others}
    return DiffusionSettings(schedule=base, zero_terminal_snr=base != name, **settings)


def check_trajectory(settings: DiffusionSettings, steps: int, strength: float = 1.0) -> None:
    """As many visits as steps, from the noisiest level, without repeats, to the clean end."""
    if settings.spacing == "custom":
        settings = replace(settings, sampling_times=tuple((1 - i / steps) for i in range(steps)))
    if settings.spacing == "leading":  # of an offset that fits 1000 steps too
        settings = replace(settings, steps_offset=0)
    times = visited_times(settings, build_schedule(settings), steps, strength)
    whole = settings.spacing != "leading"
    assert times.shape == (steps + 1,) and times.dtype == torch.float64, steps
    assert times[-1] == 0 and (times.diff() < 0).all(), steps
    assert times[0].item() == pytest.approx(strength, rel=1e-12) if whole else times[0] <= 1, steps
    assert strength < 1 or not whole or times[0] == 1


@pytest.mark.parametrize("name", ["rectified_flow", "linear"])
@pytest.mark.parametrize("spacing", FAST)
def test_every_number_of_steps(name: str, spacing: str):
    """These spacings visit the same levels of every tabulated schedule."""
    if (name, spacing) == ("rectified_flow", "leading"):
        pytest.skip("has no levels to name")
    for steps in range(1, LEVELS + 1):
        check_trajectory(model(name, spacing=spacing), steps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spacing", ["log_snr", "karras"])
def test_spacings_in_noise_levels(name: str, spacing: str):
    counts = range(1, LEVELS + 1) if name == "rectified_flow" else SOME
    for steps in counts:
        check_trajectory(model(name, spacing=spacing), steps)


@pytest.mark.parametrize("visited", NAMES)
@pytest.mark.parametrize("trained", TRAINED)
def test_levels_of_another_schedule(trained: str, visited: str):
    for spacing in [*FAST, "log_snr", "karras"]:
        if (visited, spacing) == ("rectified_flow", "leading"):
            continue
        for steps in (1, 2, 7, 50, 1000) if spacing == "trailing" else (1, 3, 50):
            check_trajectory(model(trained, spacing=spacing, sampling_schedule=visited), steps)


VISITED = ["trained", *NAMES]
STRIDE = len(NAMES) * len(VISITED)


@pytest.mark.slow
@pytest.mark.parametrize("visited", VISITED)
@pytest.mark.parametrize("trained", NAMES)
def test_numbers_of_steps_on_every_pair(trained: str, visited: str):
    """Each pair takes some numbers of steps; every number is taken by a pair."""
    place = NAMES.index(trained) * len(VISITED) + VISITED.index(visited)
    counts = [*range(1 + place % STRIDE, LEVELS + 1, STRIDE), LEVELS]
    for spacing in [*FAST, "log_snr", "karras"]:
        levels = trained if visited == "trained" else visited
        if (levels, spacing) != ("rectified_flow", "leading"):
            for steps in counts:
                check_trajectory(model(trained, spacing=spacing, sampling_schedule=visited), steps)


@pytest.mark.parametrize("strength", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_part_of_the_way_begins_at_the_strength(strength: float, shift: float):
    for spacing in ("trailing", "linspace", "log_snr"):
        check_trajectory(
            model("rectified_flow", spacing=spacing, sampling_shift=shift), 6, strength
        )
    check_trajectory(model("linear", sampling_schedule="cosine", spacing="karras"), 6, strength)


def test_part_of_the_way_is_the_rest_of_a_longer_walk():
    """Of 8 shifted steps, the 6 that begin at or below the third visit."""
    settings = model("rectified_flow", sampling_shift=8.0)
    longer = visited_times(settings, build_schedule(settings), 8)
    rest = visited_times(settings, build_schedule(settings), 6, longer[2].item())
    torch.testing.assert_close(rest, longer[2:])


@pytest.mark.parametrize("visited", NAMES)
@pytest.mark.parametrize("trained", TRAINED)
def test_visits_have_the_noise_of_the_other_schedule(trained: str, visited: str):
    """The visits of a model of that schedule, over what of it the trained one reaches."""
    own, other = named_schedule(trained), named_schedule(visited)
    settings = model(trained, sampling_schedule=visited)
    times = visited_times(settings, own, 10)
    reach = other.time_of_log_snr(own.log_snr(torch.ones((), dtype=torch.float64)))
    expected = reach * other.times(10, "trailing")
    inner = slice(1, -1)
    torch.testing.assert_close(own.log_snr(times)[inner], other.log_snr(expected)[inner])


def test_the_schedule_itself_is_no_other():
    for name in NAMES:
        own = build_schedule(model(name))
        same = visited_times(model(name, sampling_schedule=name), own, 10)
        assert torch.equal(same, visited_times(model(name), own, 10))


def test_rediscretised_rectified_flow_by_hand():
    """Level i of cosine with zero terminal SNR is at t = tan(angle) / (1 + tan(angle))."""
    settings = model("rectified_flow", sampling_schedule="cosine_zero_snr")
    other = named_schedule("cosine_zero_snr")
    visits = torch.tensor([0.75, 0.5, 0.25], dtype=torch.float64)
    tangent = other.sigma(visits) / other.alpha(visits)
    times = visited_times(settings, build_schedule(settings), 4)
    torch.testing.assert_close(times[1:-1], tangent / (1 + tangent))


def test_the_shift_keeps_the_ends():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    moved = shifted(t, 8.0)
    assert moved[0] == 0 and moved[-1] == 1 and (moved[1:-1] > t[1:-1]).all()
    torch.testing.assert_close(shifted(moved, 1 / 8), t)


@pytest.mark.parametrize(
    "sampler, calls",
    [("ddim", 5), ("heun", 9), ("midpoint", 10), ("unipc", 5), ("consistency", 5)],
)
def test_the_table_is_what_the_network_sees(sampler: str, calls: int):
    """Counted: the first call of each step is at the table's time."""
    diffusion = Diffusion(resampled(DiffusionSettings(), sampler=sampler, spacing="karras"))
    asked: list[float] = []

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(t.item())
        return x / 2

    diffusion.sample(denoise, lambda i: torch.ones(1, 1, 2, 2), calls)
    table = diffusion.steps(calls)
    firsts = [sum(step.calls for step in table[:i]) for i in range(len(table))]
    assert [asked[first] for first in firsts] == [step.time for step in table]
    assert [step.index for step in table] == list(range(5))
    assert len(asked) == calls == sum(step.calls for step in table)


def test_the_table_of_a_tabulated_schedule():
    diffusion = Diffusion(model("linear"))
    table = diffusion.steps(4)
    assert [step.condition for step in table] == [999.0, 749.0, 499.0, 249.0]
    for step in table:
        assert step.alpha**2 + step.sigma**2 == pytest.approx(1)
        assert step.log_snr == pytest.approx(2 * math.log(step.alpha / step.sigma))
    assert Diffusion(DiffusionSettings()).steps(2)[0].log_snr == -math.inf


@pytest.mark.parametrize("sampler", ["heun", "midpoint"])
def test_an_end_to_end_model_has_one_step_of_one_call(sampler: str):
    settings = model("linear", objective="end_to_end", sampler=sampler)
    (step,) = Diffusion(settings).steps(1)
    assert (step.time, step.condition, step.calls) == (1.0, 999.0, 1)
    with pytest.raises(UserError, match="one model call"):
        Diffusion(settings).steps(2)


@pytest.mark.parametrize("steps", [1, 3, 199, 999])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_leading_less_leaves_out_the_noisiest(steps: int, strength: float):
    less = model("linear", spacing="leading_less", steps_offset=0)
    more = replace(less, spacing="leading")
    found, whole = (
        visited_times(one, build_schedule(one), count, strength)
        for one, count in ((less, steps), (more, steps + 1))
    )
    assert torch.equal(found, whole[1:])


def test_leading_less_needs_levels_and_one_to_spare():
    flow = model("rectified_flow", spacing="leading_less")
    with pytest.raises(UserError, match="rectified_flow does not have"):
        visited_times(flow, build_schedule(flow), 3)
    linear = model("linear", spacing="leading_less", steps_offset=0)
    with pytest.raises(UserError, match="at most 999"):
        visited_times(linear, build_schedule(linear), 1000)
