"""The objective: parametrisations, weights, noise levels, the loss and the denoiser it trains."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.types import ModelInputs

SCHEDULES = ["rectified_flow", "linear", "cosine"]
PREDICTIONS = ["x", "eps", "v"]
PAIRS = [pair for pair in product(SCHEDULES, PREDICTIONS) if pair != ("rectified_flow", "eps")]


def build(schedule: str = "linear", prediction: str = "x", **others) -> Diffusion:
    settings = {"sampling_shift": 1.0, **others}
    return Diffusion(DiffusionSettings(schedule=schedule, prediction=prediction, **settings))


def code(x: Tensor, valid: Tensor | None = None) -> ModelInputs:
    b, _, h, w = x.shape
    return ModelInputs(
        x=x,
        cond=torch.zeros(b, 3, h, w, dtype=x.dtype),
        features=None,
        valid=torch.ones_like(x) if valid is None else valid,
        label=torch.zeros(b, dtype=torch.int64),
    )


def converted(diffusion: Diffusion, x0: Tensor, x_t: Tensor, t: Tensor, kind: str) -> Tensor:
    """What a network of another prediction answers where x0 is right."""
    alpha, sigma = diffusion.levels(t, x_t)
    eps = (x_t - alpha * x0) / sigma
    if kind == "eps":
        return eps
    return Diffusion(replace(diffusion.settings, prediction=kind)).target(x0, eps, t)


@pytest.fixture
def triple() -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 2, 4, 5, dtype=torch.float64, generator=source)
    return x0, noise, torch.tensor([0.02, 0.2, 0.4, 0.6, 0.8, 0.98], dtype=torch.float64)


@pytest.mark.parametrize("schedule, prediction", PAIRS)
def test_the_target_converts_into_all_three(triple, schedule: str, prediction: str):
    x0, noise, t = triple
    diffusion = build(schedule, prediction)
    x_t, output = diffusion.corrupt(x0, noise, t), diffusion.target(x0, noise, t)
    velocity = Diffusion(replace(diffusion.settings, prediction="v")).target(x0, noise, t)
    torch.testing.assert_close(diffusion.to_x0(output, x_t, t), x0)
    for kind, truth in (("eps", noise), ("v", velocity)):
        found = converted(diffusion, diffusion.to_x0(output, x_t, t), x_t, t, kind)
        torch.testing.assert_close(found, truth)


def test_targets_are_the_published_ones(triple):
    x0, noise, t = triple
    rows = t[:, None, None, None]
    torch.testing.assert_close(build("rectified_flow", "v").target(x0, noise, t), noise - x0)
    diffusion = build("linear", "v")
    alpha, sigma = diffusion.schedule.alpha(rows), diffusion.schedule.sigma(rows)
    torch.testing.assert_close(diffusion.target(x0, noise, t), alpha * noise - sigma * x0)
    assert torch.equal(build("linear", "x").target(x0, noise, t), x0)
    assert torch.equal(build("linear", "eps").target(x0, noise, t), noise)


def test_corruption_ends_in_data_and_in_noise(triple):
    x0, noise, _ = triple
    diffusion = build("linear", zero_terminal_snr=True)
    assert torch.equal(diffusion.corrupt(x0, noise, torch.zeros(6)), x0)
    assert torch.equal(diffusion.corrupt(x0, noise, torch.ones(6)), noise)


@pytest.mark.parametrize("prediction", ["x", "v"])
@pytest.mark.parametrize("schedule", ["rectified_flow", "linear"])
def test_pure_noise_and_clean_data_convert_finitely(triple, schedule: str, prediction: str):
    x0, noise, _ = triple
    diffusion = build(schedule, prediction, zero_terminal_snr=True)
    for t in (torch.zeros(6), torch.ones(6)):
        output = diffusion.target(x0, noise, t)
        recovered = diffusion.to_x0(output, diffusion.corrupt(x0, noise, t), t)
        torch.testing.assert_close(recovered, x0)


@pytest.mark.parametrize(
    "settings",
    [
        DiffusionSettings(schedule="rectified_flow", prediction="eps"),
        DiffusionSettings(schedule="linear", zero_terminal_snr=True, prediction="eps"),
    ],
)
def test_eps_of_pure_noise_is_refused(settings: DiffusionSettings):
    with pytest.raises(UserError, match="diffusion.prediction.*Choose prediction 'v' or 'x'"):
        Diffusion(settings)


@pytest.mark.parametrize(
    "change", [{"shift": 0.0}, {"sampling_shift": -1.0}, {"eta": 1.5}, {"eta": -0.1}]
)
def test_senseless_numbers_are_refused(change: dict[str, float]):
    with pytest.raises(UserError, match=f"diffusion.{next(iter(change))}"):
        Diffusion(DiffusionSettings(**change))


def test_uniform_times_without_shift_are_u():
    u = torch.rand(10)
    torch.testing.assert_close(build(shift=1.0).draw_times(u), u)


def test_shift_moves_the_median_towards_noise():
    u = torch.tensor([1e-6, 0.5, 1 - 1e-6], dtype=torch.float64)
    t = build(shift=4.0).draw_times(u)
    assert t[1].item() == pytest.approx(0.8)
    assert 0 < t[0] < 1e-5 and 1 - 1e-5 < t[2] < 1


def test_logit_normal_times_have_normal_logits():
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    t = build(shift=1.0, density="logit_normal", density_mean=-0.4, density_std=0.8).draw_times(u)
    assert t.logit().mean().item() == pytest.approx(-0.4, abs=1e-6)
    assert t.logit().std().item() == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("schedule, prediction", PAIRS)
def test_min_snr_weighs_the_error_of_x0(triple, schedule: str, prediction: str):
    """Whatever the parametrisation, weight x output error^2 = min(SNR, gamma) x x0 error^2."""
    x0, noise, t = triple
    diffusion = build(schedule, prediction, weighting="min_snr", min_snr_gamma=5.0)
    x_t, output = diffusion.corrupt(x0, noise, t), diffusion.target(x0, noise, t)
    x0_error = diffusion.to_x0(output + 0.1, x_t, t) - x0
    snr = diffusion.schedule.log_snr(t).exp()
    expected = snr.clamp(max=5) * x0_error[:, 0, 0, 0] ** 2
    torch.testing.assert_close(diffusion.weight(t) * 0.1**2, expected)


def test_min_snr_closed_forms():
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    snr = build().schedule.log_snr(t).exp()
    capped = snr.clamp(max=5)
    for prediction, expected in (("x", capped), ("eps", capped / snr), ("v", capped / (snr + 1))):
        weight = build(prediction=prediction, weighting="min_snr").weight(t)
        torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("prediction, clean", [("x", 5.0), ("eps", 0.0), ("v", 0.0)])
def test_min_snr_is_finite_at_the_ends(prediction: str, clean: float):
    diffusion = build(
        prediction=prediction, zero_terminal_snr=prediction != "eps", weighting="min_snr"
    )
    weight = diffusion.weight(torch.tensor([0.0, 1.0]))
    assert weight[0] == clean and weight.isfinite().all()


def test_loss_counts_valid_entries_of_each_row(triple):
    x0, noise, t = triple
    valid = torch.zeros_like(x0)
    valid[:, :, :2] = 1
    valid[2] = 0
    total, count = build().loss(lambda x, *_, **__: x0 + 2, code(x0, valid), t, noise)
    expected = valid.sum(dim=(1, 2, 3))
    torch.testing.assert_close(count, expected)
    torch.testing.assert_close(total, 4 * expected)


def test_loss_ignores_what_lies_outside_the_mask(triple):
    x0, noise, t = triple
    valid = (torch.rand(x0.shape, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    losses = [
        build().loss(lambda x, *_, **__: torch.zeros_like(x), code(x, valid), t, noise)[0]
        for x in (x0, x0 + 100 * (1 - valid))
    ]
    torch.testing.assert_close(*losses)


def test_loss_of_a_row_ignores_the_other_rows(triple):
    x0, noise, t = triple
    diffusion = build(prediction="v", weighting="min_snr")

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        return x * time.to(x)[:, None, None, None] / 1000

    together = diffusion.loss(net, code(x0), t, noise)[0]
    alone = diffusion.loss(net, code(x0[3:4]), t[3:4], noise[3:4])[0]
    torch.testing.assert_close(together[3:4], alone, rtol=0, atol=0)


@pytest.mark.parametrize("schedule, prediction", PAIRS)
def test_loss_of_the_best_network_is_the_posterior_variance(gaussian, schedule, prediction):
    """x0 ~ N(m, s^2): Var[x0 | x_t] = s^2 sigma^2 / (alpha^2 s^2 + sigma^2)."""
    diffusion = build(schedule, prediction)
    data = gaussian(diffusion.schedule)
    source = torch.Generator().manual_seed(0)
    x0 = data.mean + data.std * torch.randn(4, 1, 100, 100, dtype=torch.float64, generator=source)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=source)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    best = Diffusion(replace(diffusion.settings, prediction=prediction))

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        x0 = data.denoise(x, t[:, None, None, None])
        return converted(build(schedule, "x"), x0, x, t, prediction)

    total, count = best.loss(net, code(x0), t, noise)
    alpha, sigma = data.schedule.alpha(t), data.schedule.sigma(t)
    variance = (data.std * sigma) ** 2 / ((data.std * alpha) ** 2 + sigma**2)
    per_output = {"x": torch.ones_like(t), "eps": alpha / sigma, "v": 1 / sigma}[prediction]
    torch.testing.assert_close(total / count, variance * per_output**2, rtol=0.06, atol=0)


@pytest.mark.parametrize("schedule, prediction", PAIRS)
def test_denoiser_reads_the_network_as_the_loss_does(triple, schedule: str, prediction: str):
    x0, noise, t = triple
    diffusion = build(schedule, prediction)
    seen = []

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        seen.append((x, cond, time, label, features))
        return diffusion.target(x0, noise, t)  # the right answer

    coded = replace(code(x0), features=torch.ones(6, 1, 2, 2))
    total, _ = diffusion.loss(net, coded, t, noise)
    answer = diffusion.denoiser(net, coded)(diffusion.corrupt(x0, noise, t), t)
    assert total.abs().max() == 0
    torch.testing.assert_close(answer, x0)
    for in_loss, in_sampling in zip(*seen):
        assert torch.equal(in_loss, in_sampling)
    assert seen[0][2].dtype == torch.float32 and seen[0][4] is coded.features


def test_denoiser_asks_one_time_for_all_rows():
    diffusion, times = build(), []

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        times.append(time)
        return x

    x = torch.randn(3, 1, 4, 4)
    diffusion.denoiser(net, code(x))(x, torch.tensor(0.75, dtype=torch.float64))
    assert times[0].tolist() == [749.0]


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_sampling_recovers_the_distribution(gaussian, prediction: str):
    diffusion = build("rectified_flow", prediction, sampler="heun")
    data = gaussian(diffusion.schedule)

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features=None) -> Tensor:
        t = time / 1000
        x0 = data.denoise(x, t[:, None, None, None])
        return converted(build("rectified_flow", "x"), x0, x, t, prediction)

    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = diffusion.sample(diffusion.denoiser(net, code(start)), lambda i: start, nfe=63)
    torch.testing.assert_close(x, data.mean + data.std * start, rtol=0, atol=0.01)


def test_sampling_follows_the_settings():
    asked, times = [], []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.full((1, 1, 2, 2), 1.0 + i)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return x / 2

    build(eta=1.0, spacing="linspace").sample(denoise, noise, nfe=3)
    assert asked == [0, 1, 2]  # the start, then every step but the last
    assert times == pytest.approx([1.0, 0.501, 0.001])
    times.clear()
    build("rectified_flow", sampling_shift=3.0).sample(denoise, noise, nfe=2)
    assert times == pytest.approx([1.0, 0.75])  # 3 t / (1 + 2 t) of 1 and 1/2
    with pytest.raises(UserError, match="Choose 3 or 5"):
        build(sampler="heun").sample(denoise, noise, nfe=4)


def test_gradients_reach_the_network(triple):
    x0, noise, t = (value.float() for value in triple)
    scale = torch.tensor(0.3, requires_grad=True)
    total, count = build(prediction="v").loss(lambda x, *_, **__: scale * x, code(x0), t, noise)
    (total.sum() / count.sum()).backward()
    assert scale.grad is not None and math.isfinite(scale.grad.item()) and scale.grad.item() != 0
