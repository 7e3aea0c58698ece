"""End-to-end fine-tuning: one differentiable call from zeros, and sampling that does the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.types import ModelInputs

# Stable Diffusion 2 fine-tunings predict v, with and without zero terminal SNR; others predict eps
CASES = [
    ("rectified_flow", "x", False),
    ("rectified_flow", "v", False),
    ("scaled_linear", "v", True),
    ("scaled_linear", "v", False),
    ("scaled_linear", "eps", False),
]


def build(schedule: str, prediction: str, zero: bool, **others) -> Diffusion:
    return Diffusion(
        DiffusionSettings(
            schedule=schedule,
            prediction=prediction,
            zero_terminal_snr=zero,
            objective="end_to_end",
            **others,
        )
    )


def draw(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def coded() -> ModelInputs:
    label = torch.zeros(2, dtype=torch.int64)
    return ModelInputs(
        draw(0), cond=draw(1), features=None, valid=torch.ones(2, 3, 4, 4), label=label
    )


class Net:
    """Answers a multiple of the condition, and remembers what it was given."""

    def __init__(self) -> None:
        self.scale = torch.tensor(0.7, requires_grad=True)
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None):
        self.calls.append((x, time))
        return self.scale * cond


@pytest.mark.parametrize("schedule, prediction, zero", CASES)
def test_the_answer_is_the_published_conversion(coded, schedule: str, prediction: str, zero: bool):
    diffusion, net = build(schedule, prediction, zero), Net()
    x0 = diffusion.one_step(net, coded)
    alpha, sigma = (
        level(torch.ones(())).item()
        for level in (diffusion.schedule.alpha, diffusion.schedule.sigma)
    )
    factor = {"x": 1.0, "v": -sigma, "eps": -sigma / alpha if alpha else None}[prediction]
    torch.testing.assert_close(x0, factor * net.scale * coded.cond)
    ((x, time),) = net.calls
    assert x.abs().max() == 0 and x.shape == coded.x.shape
    assert time.tolist() == [1000.0 if schedule == "rectified_flow" else 999.0]  # for all rows


@pytest.mark.parametrize("schedule, prediction, zero", CASES)
def test_sampling_repeats_what_was_trained(coded, schedule: str, prediction: str, zero: bool):
    diffusion, net = build(schedule, prediction, zero), Net()
    denoise = diffusion.denoiser(net, coded)
    x = diffusion.sample(denoise, lambda i: draw(9), nfe=1)
    assert torch.equal(x, diffusion.one_step(net, coded)) and len(net.calls) == 2


def test_the_network_can_be_told_another_level(coded):
    told, usual, net = (
        build("scaled_linear", "v", True, told=1),
        build("scaled_linear", "v", True),
        Net(),
    )
    x0 = told.one_step(net, coded)
    assert torch.equal(x0, usual.one_step(net, coded))  # from zeros of the noisiest level
    assert [time.tolist() for _, time in net.calls] == [[1.0], [999.0]]
    assert [step.condition for step in told.steps(1)] == [1.0]
    with pytest.raises(UserError, match="diffusion.told: 1000"):
        build("scaled_linear", "v", True, told=1000)
    with pytest.raises(UserError, match="diffusion.told: 1. Objective 'end_to_end'"):
        Diffusion(DiffusionSettings(told=1))


def test_the_answer_is_differentiable(coded):
    net = Net()
    build("scaled_linear", "v", True).one_step(net, coded).square().sum().backward()
    expected = 2 * net.scale.item() * coded.cond.square().sum()
    torch.testing.assert_close(net.scale.grad, expected)


def test_a_learned_variance_is_left_aside(coded):
    diffusion, net = build("scaled_linear", "v", True), Net()
    narrow = diffusion.one_step(net, coded)
    wide = diffusion.one_step(lambda *a, **k: torch.cat([net(*a, **k), draw(5)], 1), coded)
    assert torch.equal(wide, narrow)


@pytest.mark.parametrize("nfe", [2, 50])
def test_more_calls_than_one_are_refused(coded, nfe: int):
    diffusion = build("scaled_linear", "v", True)
    with pytest.raises(UserError, match=f"not {nfe}. Set evaluation.nfe to 1"):
        diffusion.sample(diffusion.denoiser(Net(), coded), lambda i: draw(i), nfe)


def test_the_loss_does_not_see_the_objective(coded):
    t, noise = torch.tensor([0.3, 0.9]), draw(2)
    ours = build("scaled_linear", "v", True)
    plain = Diffusion(DiffusionSettings(**{**vars(ours.settings), "objective": "denoising"}))
    first, second = (one.loss(Net(), coded, t, noise)[0] for one in (ours, plain))
    assert torch.equal(first, second)
