"""Another way of sampling the same model: what is chosen reaches the sampler, if it can be."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import (
    SAMPLERS,
    DiffusionSettings,
    Sampler,
    nfe,
    resampled,
    spendable,
)
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError

SHAPE = (1, 2, 4, 4)
TRAINED = DiffusionSettings()
PLAIN = set(SAMPLERS) - {"ancestral_learned"}  # which needs a network that answers a variance


def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def sampled(settings: DiffusionSettings, calls: int = 6, **part) -> tuple[Tensor, list[float]]:
    """The result, and the times at which the denoiser was asked."""
    asked: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t.item())
        return torch.tanh(1.3 * x + t.item())

    return Diffusion(settings).sample(denoise, draw, calls, **part), asked


def test_nothing_asked_changes_nothing():
    assert resampled(TRAINED) == TRAINED
    assert resampled(TRAINED, sampler="ddim", spacing="trailing", schedule="trained") == TRAINED


@pytest.mark.parametrize("sampler", sorted(PLAIN - {"ddim", "euler", "heun"}))
def test_the_sampler_reaches_the_trajectory(sampler: str):
    """Euler is left out, as its steps are DDIM's; heun, as it cannot spend 6 calls."""
    assert not torch.allclose(
        sampled(resampled(TRAINED, sampler=sampler))[0], sampled(TRAINED)[0], atol=1e-3
    )


def test_heun_reaches_the_trajectory():
    plain, second = sampled(TRAINED, 5)[1], sampled(resampled(TRAINED, sampler="heun"), 5)[1]
    assert len(set(plain)) == 5 and len(set(second)) == 3


@pytest.mark.parametrize(
    "choice",
    [
        {"spacing": "linspace"},
        {"spacing": "respaced"},
        {"spacing": "log_snr"},
        {"spacing": "karras"},
        {"times": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)},
        {"schedule": "linear"},
        {"schedule": "scaled_linear"},
        {"schedule": "cosine"},
        {"schedule": "cosine_zero_snr"},
        {"schedule": "linear", "spacing": "leading"},
    ],
    ids=str,
)
def test_spacing_and_schedule_reach_the_trajectory(choice):
    (x, asked), (plain, usual) = sampled(resampled(TRAINED, **choice)), sampled(TRAINED)
    assert asked[1:] != pytest.approx(usual[1:], abs=1e-3)
    assert not torch.allclose(x, plain, atol=1e-3)


def test_schedules_differ_from_each_other():
    names = ["linear", "scaled_linear", "cosine", "linear_zero_snr", "scaled_linear_zero_snr"]
    trajectories = {tuple(sampled(resampled(TRAINED, schedule=name))[1]) for name in names}
    assert len(trajectories) == len(names)


def test_the_number_of_steps_reaches_the_trajectory():
    for sampler in PLAIN:
        results = []
        for steps in (2, 3, 5):
            calls = nfe(sampler, steps)
            x, asked = sampled(resampled(TRAINED, sampler=sampler), calls)
            assert len(asked) == calls
            results.append(x)
        assert not torch.allclose(results[0], results[1], atol=1e-3)
        assert not torch.allclose(results[1], results[2], atol=1e-3)


def test_eta_reaches_ddim():
    results = [sampled(resampled(TRAINED, eta=eta))[0] for eta in (0.0, 0.5, 1.0)]
    assert not torch.allclose(results[0], results[1], atol=1e-3)
    assert not torch.allclose(results[1], results[2], atol=1e-3)
    ancestral = sampled(resampled(TRAINED, sampler="ancestral"))[0]
    torch.testing.assert_close(results[2], ancestral, rtol=0, atol=0)


def test_the_custom_times_are_those_visited():
    times = (1.0, 0.8, 0.31)
    settings = resampled(TRAINED, times=times)
    assert settings.spacing == "custom" and sampled(settings, 3)[1] == list(times)
    assert sampled(resampled(settings, sampler="heun"), 5)[1] == [1.0, 0.8, 0.8, 0.31, 0.31]


def test_a_custom_walk_has_its_own_length():
    settings = resampled(TRAINED, times=(1.0, 0.8, 0.31), sampler="heun")
    with pytest.raises(UserError, match="3 times cost 5 model calls of heun, not 3. Ask for 5"):
        sampled(settings, 3)
    with pytest.raises(UserError, match="Ask for 5"):
        Diffusion(settings).check_calls(7)


@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
def test_named_levels_switch_off_the_shift(spacing: str):
    assert resampled(TRAINED, spacing=spacing).sampling_shift == 1
    assert resampled(TRAINED, spacing="linspace").sampling_shift == TRAINED.sampling_shift
    assert resampled(TRAINED, schedule="cosine").sampling_shift == 1
    assert resampled(TRAINED, times=(1.0, 0.5)).sampling_shift == 1


def test_another_schedule_serves_a_published_recipe():
    """Whose trajectory ends at its own first level, which other schedules do not have."""
    published = DiffusionSettings(
        schedule="scaled_linear",
        prediction="v",
        spacing="leading",
        final="first_level",
        sampling_shift=1.0,
    )
    for schedule in ("rectified_flow", "cosine_zero_snr", "linear"):
        settings = resampled(published, schedule=schedule, spacing="trailing")
        assert sampled(settings, 4)[1][0] == 1.0


def test_another_spacing_forgets_the_custom_times():
    custom = resampled(TRAINED, times=(1.0, 0.5))
    assert resampled(custom, sampler="euler").sampling_times == (1.0, 0.5)
    assert resampled(custom, spacing="custom").sampling_times == (1.0, 0.5)
    assert resampled(custom, spacing="linspace").sampling_times == ()


@pytest.mark.parametrize(
    "choice, message",
    [
        ({"sampler": "dimm"}, "sampler 'dimm'.*'ddim'"),
        ({"spacing": "karas"}, "spacing 'karas'.*'karras'"),
        ({"schedule": "cosin"}, "schedule 'cosin'.*'cosine'"),
        ({"spacing": "custom"}, "needs the times"),
        ({"spacing": "karras", "times": (1.0, 0.5)}, "spacing 'karras'.*one of the two"),
    ],
)
def test_what_does_not_exist_is_named(choice, message: str):
    with pytest.raises(UserError, match=message):
        resampled(TRAINED, **choice)


@pytest.mark.parametrize(
    "times", [(0.9, 0.5), (1.0, 0.5, 0.5), (1.0, 0.5, 0.7), (1.0, 0.0), (1.0, float("nan"))]
)
def test_times_that_make_no_walk_are_refused(times):
    with pytest.raises(UserError, match="diffusion.sampling_times.*falling"):
        Diffusion(resampled(TRAINED, times=times))


@pytest.mark.parametrize(
    "settings",
    [{"sampling_times": (1.0, 0.5)}, {"spacing": "custom", "sampling_shift": 1.0}],
)
def test_times_and_spacing_belong_together(settings):
    with pytest.raises(UserError, match="diffusion.sampling_times.*'custom' visits the times"):
        Diffusion(DiffusionSettings(**settings))


@pytest.mark.parametrize("change", [{"spacing": "karras"}, {"sampling_schedule": "cosine"}])
def test_a_shift_off_named_levels_is_refused(change):
    with pytest.raises(UserError, match="diffusion.sampling_shift: 4.0.*Set it to 1"):
        Diffusion(DiffusionSettings(**change))


def test_every_choice_of_sampling_is_a_setting():
    names = {field.name for field in fields(DiffusionSettings)}
    assert {"sampler", "spacing", "sampling_schedule", "sampling_times", "eta"} <= names
    assert set(get_args(Sampler)) == set(SAMPLERS)


def test_what_each_sampler_can_spend():
    table = {name: [n for n in range(-3, 8) if spendable(name, n)] for name in SAMPLERS}
    assert table.pop("heun") == [1, 3, 5, 7]
    assert table.pop("midpoint") == [2, 4, 6]
    assert all(calls == list(range(1, 8)) for calls in table.values())


def test_a_start_is_noised_to_its_strength():
    """At the first question: alpha start + sigma noise(0), at that time."""
    seen = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t.item()))
        return draw(7)

    diffusion = Diffusion(TRAINED)
    x = diffusion.sample(denoise, draw, 3, start=draw(7), strength=0.4)
    torch.testing.assert_close(seen[0][0], 0.6 * draw(7) + 0.4 * draw(0))
    assert seen[0][1] == pytest.approx(0.4) and len(seen) == 3
    assert [t for _, t in seen] == [step.time for step in diffusion.steps(3, strength=0.4)]
    torch.testing.assert_close(x, draw(7))


def test_a_start_at_full_strength_is_pure_noise():
    whole, part = sampled(TRAINED)[0], sampled(TRAINED, start=draw(7))[0]
    torch.testing.assert_close(whole, part, rtol=0, atol=0)


@pytest.mark.parametrize("part", [{"strength": 0.5}, {"start": draw(7), "strength": 0.0}])
def test_a_strength_without_meaning_is_refused(part):
    with pytest.raises(UserError, match="strength"):
        sampled(TRAINED, **part)


def test_an_end_to_end_model_takes_no_start():
    settings = DiffusionSettings(objective="end_to_end")
    with pytest.raises(UserError, match="takes no start"):
        sampled(settings, 1, start=draw(7), strength=0.5)
