"""The variational bound of a learned variance: closed forms, the published posterior, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.variance import BOUND_WEIGHT, variational_bound
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, build_schedule
from stepsight.types import ModelInputs

NAMES = ["linear", "scaled_linear", "cosine"]
INDICES = [1, 2, 50, 500, 998, 999]  # levels counted from 0


def build(name: str, **others):
    return build_schedule(DiffusionSettings(schedule=name, **others))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times(indices: list[int]) -> Tensor:
    return (torch.tensor(indices, dtype=torch.float64) + 1) / LEVELS


def posterior(alpha_bar: Tensor, before: Tensor, x0: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_{t-1} | x_t, x0): Ho et al. 2020, eq. 6-7."""
    alpha = alpha_bar / before
    mean = before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * x_t
    return mean / (1 - alpha_bar), (1 - before) / (1 - alpha_bar) * (1 - alpha)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_the_divergence_of_the_two_posteriors(name: str, zero: bool):
    schedule = build(name, zero_terminal_snr=zero)
    t = times(INDICES)
    x0, guess, x_t, v = (draw(len(INDICES), 2, 3, 4, seed=i) for i in range(4))
    alpha_bar, before = (
        schedule.alpha(time)[:, None, None, None] ** 2 for time in (t, t - 1 / LEVELS)
    )
    mean, variance = posterior(alpha_bar, before, x0, x_t)
    share, beta = (v + 1) / 2, 1 - alpha_bar / before
    learned = torch.exp(share * beta.log() + (1 - share) * variance.log())
    model = Normal(posterior(alpha_bar, before, guess, x_t)[0], learned.sqrt())
    nats = kl_divergence(Normal(mean, variance.sqrt()), model)
    bound = variational_bound(schedule, x0 - guess, v, t)
    torch.testing.assert_close(bound, nats / math.log(2), rtol=1e-6, atol=1e-9)


def test_the_learned_range_is_that_of_diffusers(diffusers):
    """With an exact mean the divergence tells the variance: it is compared through its ratio."""
    peer = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    v = draw(1, 1, 2, 2)
    for index in (1, 50, 900):
        true = peer._get_variance(index, variance_type="fixed_small").double()
        learned = peer._get_variance(index, predicted_variance=v).exp()
        ratio = true / learned
        expected = (ratio - 1 - ratio.log()) / 2 / math.log(2)
        bound = variational_bound(build("linear"), torch.zeros_like(v), v, times([index]))
        torch.testing.assert_close(bound, expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_posterior_costs_nothing(name: str):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    exact = torch.zeros(101, 1, 1, 1, dtype=torch.float64)
    bound = variational_bound(build(name), exact, exact - 1, t)
    assert bound.abs().max() == 0
    assert (variational_bound(build(name), exact, exact + 1, t) > 0).all()


def test_the_best_variance_is_the_expected_squared_error():
    """d KL / d variance = 0 at beta-tilde (1 + gain error^2), in the range for a small error."""
    schedule, t = build("linear"), times([1])
    error = torch.full((1, 1, 1, 1), 3e-3, dtype=torch.float64)
    gain = schedule.log_snr(t - 1 / LEVELS).exp() - schedule.log_snr(t).exp()
    width = 2 * (schedule.sigma(t) / schedule.sigma(t - 1 / LEVELS)).log()
    best = 2 * torch.log1p(gain * error.square()) / width - 1
    v = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(variational_bound(schedule, error, v, t).sum(), v)
    assert -1 < best.item() < 1 and abs(slope.item()) < 1e-12


def test_the_first_level_shares_the_second_s_step():
    error, v = draw(1, 1, 4, 4, seed=1), draw(1, 1, 4, 4)
    first, second = (variational_bound(build("linear"), error, v, times([i])) for i in (0, 1))
    assert torch.equal(first, second)


def test_small_divergences_survive_float32():
    """At high noise the two variances differ by parts in 1e5."""
    schedule, t = build("linear"), torch.tensor([1.0, 0.9])
    error, v = 1e-2 * draw(2, 1, 8, 8), draw(2, 1, 8, 8, seed=1)
    exact = variational_bound(schedule, error, v, t.double())
    single = variational_bound(schedule, error.float(), v.float(), t)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=2e-2, atol=1e-12)


def diffusion(**settings) -> Diffusion:
    base = {"schedule": "linear", "prediction": "v", "variance": "trained", "sampling_shift": 1.0}
    return Diffusion(DiffusionSettings(**{**base, **settings}))


def answering(output: Tensor):
    """A network that always answers `output`."""
    return lambda *_, **__: output


def code(x: Tensor, valid: Tensor) -> ModelInputs:
    label = torch.zeros(len(x), dtype=torch.int64)
    return ModelInputs(x, cond=torch.zeros_like(x), features=None, valid=valid, label=label)


@pytest.fixture
def problem() -> tuple[ModelInputs, Tensor, Tensor, Tensor]:
    """Data with holes, noise, times, and a network's output of twice the channels."""
    valid = (draw(3, 2, 4, 4, seed=5) > 0).double()
    t = torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64)
    return code(draw(3, 2, 4, 4), valid), draw(3, 2, 4, 4, seed=1), t, draw(3, 4, 4, 4, seed=2)


@pytest.mark.parametrize("weighting", ["uniform", "min_snr"])
@pytest.mark.parametrize("prediction", ["x", "eps", "v"])
def test_the_loss_adds_the_bound_of_the_valid_entries(problem, prediction: str, weighting: str):
    coded, noise, t, output = problem
    both = [
        diffusion(prediction=prediction, weighting=weighting, variance=variance)
        for variance in ("trained", "ignored")
    ]
    (hybrid, count), (simple, _) = (one.loss(answering(output), coded, t, noise) for one in both)
    x0 = both[0].to_x0(output[:, :2], both[0].corrupt(coded.x, noise, t), t)
    bound = variational_bound(both[0].schedule, coded.x - x0, output[:, 2:], t)
    expected = BOUND_WEIGHT * (bound * coded.valid).sum(dim=(1, 2, 3))
    torch.testing.assert_close(hybrid - simple, expected)
    assert torch.equal(count, coded.valid.sum(dim=(1, 2, 3)))


def test_the_bound_trains_the_variance_alone(problem):
    coded, noise, t, output = problem
    slopes = []
    for variance in ("trained", "ignored"):
        leaf = output.clone().requires_grad_()
        total, _ = diffusion(variance=variance).loss(answering(leaf), coded, t, noise)
        slopes.append(torch.autograd.grad(total.sum(), leaf)[0])
    trained, ignored = slopes
    assert torch.equal(trained[:, :2], ignored[:, :2])
    assert ignored[:, 2:].abs().max() == 0
    assert ((trained[:, 2:] != 0) == (coded.valid != 0)).all()


def test_an_ignored_variance_changes_nothing(problem):
    coded, noise, t, output = problem
    one = diffusion(variance="ignored")
    wide, narrow = (
        one.loss(answering(answer), coded, t, noise)[0] for answer in (output, output[:, :2])
    )
    assert torch.equal(wide, narrow)
    drawn = [
        one.sample(one.denoiser(answering(answer), coded), lambda i: noise, 3)
        for answer in (output, output[:, :2])
    ]
    assert torch.equal(*drawn)


def test_a_network_without_a_variance_is_named(problem):
    coded, noise, t, output = problem
    with pytest.raises(UserError, match="model.learned_variance"):
        diffusion().loss(answering(output[:, :2]), coded, t, noise)


def test_other_widths_are_a_bug(problem):
    coded, noise, t, output = problem
    with pytest.raises(AssertionError, match="twice"):
        diffusion().loss(answering(output[:, :3]), coded, t, noise)


@pytest.mark.parametrize("change", [{"schedule": "rectified_flow"}, {"objective": "end_to_end"}])
def test_a_variance_that_cannot_be_trained_is_refused(change: dict[str, str]):
    with pytest.raises(UserError, match="diffusion.variance: 'trained'.*'ignored'"):
        diffusion(**change)
