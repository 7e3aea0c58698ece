"""Classifier-free guidance of one answer by another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings, resampled
from stepsight.diffusion.guidance import guided
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.types import ModelInputs

SHAPE = (2, 4, 3, 3)


def draw(i: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def diffusion(**settings: Any) -> Diffusion:
    base = {"schedule": "linear", "prediction": "eps", "sampling_shift": 1.0, "spacing": "respaced"}
    return Diffusion(DiffusionSettings(**{**base, **settings}))


def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features: Any = None) -> Tensor:
    """Answers noise and variance that depend on the label."""
    push = (1 + label.to(x.dtype))[:, None, None, None]
    return torch.cat([torch.sin(x * push), torch.cos(x + push)], dim=1)


def coded(label: int, null: int | None = 7) -> ModelInputs:
    inputs = ModelInputs(None, draw(0)[:, :0], None, None, torch.tensor([label] * SHAPE[0]))
    inputs.null = None if null is None else torch.tensor([null] * SHAPE[0])
    return inputs


@pytest.mark.parametrize("channels", [0, 3])
def test_the_guided_noise_is_as_published(channels: int):
    """u + w (c - u) of the noise, in the channels that are guided; the variance stays the
    label's."""
    one = diffusion(guidance=4.0, guided_channels=channels, sampler="ancestral_learned")
    x, t = draw(1), torch.tensor(0.601, dtype=torch.float64)
    found = one.denoiser(net, coded(3))(x, t)
    c, u = (net(x, x, t, torch.tensor([row] * 2)) for row in (3, 7))
    count = channels or 4
    eps = c[:, :4].clone()
    eps[:, :count] = u[:, :count] + 4.0 * (c[:, :count] - u[:, :count])
    torch.testing.assert_close(found[:, :4], one.to_x0(eps, x, t[None]))
    assert torch.equal(found[:, 4:], c[:, 4:])


def test_a_scale_of_one_is_off_and_of_zero_has_no_label():
    answers = {}
    for scale in (0.0, 1.0):
        one = diffusion(guidance=scale)
        answers[scale] = one.sample(one.denoiser(net, coded(3)), draw, 4)
    one = diffusion()
    for scale, label in ((1.0, 3), (0.0, 7)):
        plain = one.sample(one.denoiser(net, coded(label, None)), draw, 4)
        torch.testing.assert_close(answers[scale], plain)


def test_both_answers_are_asked_for_once_a_step():
    calls: list[int] = []

    def counting(x: Tensor, *given: Tensor, **more: Any) -> Tensor:
        calls.append(int(given[2][0]))
        return net(x, *given, **more)

    one = diffusion(guidance=2.0)
    one.sample(one.denoiser(counting, coded(3)), draw, 5)
    assert sorted(calls) == [3] * 5 + [7] * 5


def test_what_the_network_made_of_no_label_is_given_to_it():
    inputs = coded(3)
    inputs.encoded, inputs.null_encoded = (torch.ones(1),), (torch.zeros(1),)
    seen: dict[int, float] = {}

    def reading(x: Tensor, encoded: Any, time: Tensor, label: Tensor) -> Tensor:
        seen[int(label[0])] = encoded[0].item()
        return x

    diffusion(guidance=2.0).denoiser(reading, inputs)(draw(1), torch.tensor(0.5).double())
    assert seen == {3: 1.0, 7: 0.0}


def test_times_are_tabulated_for_each_label():
    class Tabulating:
        def tabulated(self, time: Tensor, label: Tensor) -> list[Tensor]:
            return [label + step for step in time]

        def __call__(self, x: Tensor, *given: Any, table: Tensor, **_: Any) -> Tensor:
            return x * table

    inputs = coded(3)
    inputs.label, inputs.null = inputs.label[:1], torch.tensor([7])
    one, x = diffusion(guidance=3.0), draw(1)
    t = torch.tensor(0.5, dtype=torch.float64)
    found = one.denoiser(Tabulating(), inputs, [0.5])(x, t)
    level = one.schedule.condition(t).item()
    eps = (7 + level) * x + 3.0 * (3 - 7) * x
    torch.testing.assert_close(found, one.to_x0(eps, x, t[None]), rtol=1e-5, atol=1e-5)


def test_rows_are_picked_with_what_guides_them():
    inputs = coded(3)
    inputs.null, inputs.null_encoded = torch.tensor([7, 8]), (draw(5),)
    picked = inputs.rows(torch.tensor([1, 1, 0]))
    assert picked.null is not None and picked.null.tolist() == [8, 8, 7]
    assert picked.null_encoded is not None
    assert torch.equal(picked.null_encoded[0], draw(5)[[1, 1, 0]])


def test_without_a_count_all_channels_are_guided():
    x, t = draw(1), torch.zeros(())
    narrow = guided(lambda x, t: x, lambda x, t: -x, 2.0, channels=0)(x, t)
    assert torch.equal(narrow, 3 * x)


@pytest.mark.parametrize("change", [{"guidance": -1.0}, {"guidance": math.inf}])
def test_impossible_scales_are_refused(change: dict[str, float]):
    with pytest.raises(UserError, match="diffusion.guidance"):
        diffusion(**change)
    with pytest.raises(UserError, match="diffusion.guidance"):
        Diffusion(resampled(DiffusionSettings(), **change))  # type: ignore[arg-type]


def test_a_negative_count_of_channels_is_refused():
    with pytest.raises(UserError, match="guided_channels"):
        diffusion(guided_channels=-1)
