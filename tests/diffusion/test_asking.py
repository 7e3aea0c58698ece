"""What the network is asked at any x_t: the estimate it looks again by, and the error it gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.types import ModelInputs

Schedule = Any  # one of the settings' names


def build(schedule: Schedule = "rectified_flow", prediction: Any = "x") -> Diffusion:
    return Diffusion(DiffusionSettings(schedule=schedule, prediction=prediction))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def coded(x: Tensor | None, rows: int = 4, **more: Any) -> ModelInputs:
    valid = None if x is None else torch.ones_like(x)
    return ModelInputs(x, noise(rows, 3, 4, 4, seed=5), None, valid, torch.arange(rows), **more)


# ---------------------------------------------------------------------------- the estimate


@pytest.mark.parametrize("schedule", ["rectified_flow", "cosine"])
def test_an_estimate_is_the_mean_given_what_is_seen(schedule: Schedule):
    """x0 ~ N(0, 1), noise of a temperature T: the regression of x0 on x_t, from many draws."""
    diffusion = build(schedule)
    x0, eps = noise(4, 1, 300, 300), noise(4, 1, 300, 300, seed=1)
    t, temperature = torch.tensor([0.2, 0.5, 0.8, 0.8]), torch.tensor([1.0, 0.5, 1.0, 0.0])
    x = diffusion.corrupt(x0, eps * temperature[:, None, None, None], t)
    found = diffusion.estimate(x, t, temperature)
    slope = (x0 * x).mean(dim=(1, 2, 3), keepdim=True) / x.square().mean(
        dim=(1, 2, 3), keepdim=True
    )
    torch.testing.assert_close(found, slope * x, atol=0.05, rtol=0)
    torch.testing.assert_close(found[3], x0[3])  # without noise nothing is left open
    torch.testing.assert_close(diffusion.estimate(x, t)[:1], found[:1])


def test_pure_noise_says_nothing():
    x, t = noise(2, 1, 4, 4), torch.ones(2)
    assert not build().estimate(x, t).any()
    assert not build().estimate(torch.zeros_like(x), t, torch.zeros(2)).any()


# ---------------------------------------------------------------------------- errors at any x_t


@pytest.mark.parametrize("prediction", ["x", "v", "eps"])
def test_the_noise_of_an_x_t_is_what_it_holds_besides_the_truth(prediction: str):
    """On the model's own trajectory, whose x_t no noise of a training row made: an answer that is
    right has no error, and another the error of that answer."""
    diffusion = build("cosine", prediction)
    x0, t = noise(4, 1, 4, 4), torch.tensor([0.2, 0.5, 0.8, 0.9])
    x_t = diffusion.corrupt(x0 + noise(4, 1, 4, 4, seed=2), noise(4, 1, 4, 4, seed=3), t)
    alpha, sigma = diffusion.levels(t, x0)
    implied = (x_t - alpha * x0) / sigma
    right = diffusion.target(x0, implied, t)
    found, total, count = diffusion.errors(lambda *_, **__: right, coded(x0), x_t, t)
    torch.testing.assert_close(found, x0)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-12, rtol=0)
    assert count.tolist() == [16] * 4
    _, total, _ = diffusion.errors(lambda *_, **__: right + 0.5, coded(x0), x_t, t)
    torch.testing.assert_close(total, torch.full_like(total, 16 * 0.25))


def test_a_noised_truth_is_a_walk_that_was_right():
    diffusion = build("cosine", "v")
    x0, eps, t = noise(4, 1, 4, 4), noise(4, 1, 4, 4, seed=1), torch.tensor([0.2, 0.5, 0.8, 0.9])
    net = lambda x, *_, **__: 0.3 * x  # noqa: E731
    x_t = diffusion.corrupt(x0, eps, t)
    given = diffusion.errors(net, coded(x0), x_t, t, eps)
    for one, other in zip(given, diffusion.errors(net, coded(x0), x_t, t), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(diffusion.loss(net, coded(x0), t, eps), given[1:], strict=True):
        torch.testing.assert_close(one, other)


# ---------------------------------------------------------------------------- looking again


class Recording(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.looks, self.given = looks, {}

    def forward(self, x: Tensor, cond: Any, time: Tensor, label: Tensor, **more: Any) -> Tensor:
        self.given = {"cond": cond} | more
        return x


def looked(x: Tensor, images: Tensor) -> Tensor:
    return x + images.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("rows", [None, [2, 0]])
def test_what_a_task_sees_anew_follows_from_the_estimate(rows: list[int] | None):
    diffusion, net = build(), Recording(looks=True)
    x, t = noise(4, 1, 4, 4), torch.tensor([0.2, 0.5, 0.8, 1.0])
    temperature = torch.tensor([0.0, 1.0, 0.5, 0.0])
    which = None if rows is None else torch.tensor(rows)
    given = coded(None, look=looked, featured=which, temperature=temperature)
    diffusion.answer(net, given, x, t)
    seen, where = net.given["looked"]
    expected = looked(diffusion.estimate(x, t, temperature), given.cond)
    torch.testing.assert_close(seen, expected if rows is None else expected[rows])
    assert where is which
    assert torch.equal(net.given["cond"], given.cond)


def test_nothing_is_looked_at_for_a_network_or_a_task_that_does_not():
    x, t = noise(4, 1, 4, 4), torch.full((4,), 0.5)
    for net, given in (
        (Recording(looks=False), coded(None, look=looked)),
        (Recording(looks=True), coded(None)),
    ):
        build().answer(net, given, x, t)
        assert "looked" not in net.given and net.given["features"] is None


def test_what_was_encoded_goes_in_the_place_of_the_condition():
    net, encoded = Recording(looks=False), (noise(4, 2, 2, 2), noise(4, 1, 1, 1))
    x = noise(4, 1, 4, 4)
    build().answer(net, coded(None, encoded=encoded), x, torch.full((4,), 0.5))
    assert net.given == {"cond": encoded}  # and features are part of it
