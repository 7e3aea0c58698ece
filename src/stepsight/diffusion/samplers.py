"""Samplers: plain functions that walk a denoiser from noise to data, and what each walk costs.

A sampler is `(denoise, x, times, *, schedule, noise, eta) -> x`:
* `denoise(x, t)` answers the expected clean "b c h w" for x "b c h w" at the scalar time t;
* `times` "n+1" decreases from the time of `x` to the end of the walk (`Schedule.times`);
* `noise(i)` is the noise "b c h w" of step i; only the stochastic samplers ask for it.

Coefficients are float64 numbers, so x keeps its dtype and device. No formula divides by alpha or by
the noise level of the last time, so pure noise (alpha = 0) and clean data (sigma = 0) are ordinary
ends. Cost is counted in model calls (NFE).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from stepsight.errors import UserError, suggest
from stepsight.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
StepNoise = Callable[[int], Tensor]


class Sampler(Protocol):
    """The signature all samplers share."""

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        times: Tensor,
        *,
        schedule: Schedule,
        noise: StepNoise,
        eta: float = 0.0,
    ) -> Tensor: ...


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); `eta` in [0, 1] scales its random part (eq. 16)."""
    alphas, sigmas = _levels(schedule, times)
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        fresh = eta * _posterior_std(alphas[i : i + 2], sigmas[i : i + 2])
        kept = math.sqrt(max(sigmas[i + 1] ** 2 - fresh**2, 0.0))
        eps = (x - alphas[i] * x0) / sigmas[i]
        x = alphas[i + 1] * x0 + kept * eps
        if fresh > 0:
            x = x + fresh * noise(i)
    return x


def ancestral(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
) -> Tensor:
    """Draws from the posterior q(x_s | x_t, x0) (Ho et al. 2020, eq. 6-7): DDIM at full noise.

    `eta` is of no effect: it belongs to ddim.
    """
    return ddim(denoise, x, times, schedule=schedule, noise=noise, eta=1.0)


def euler(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
) -> Tensor:
    """Euler's method on the probability-flow ODE (Song et al. 2021, eq. 13), see `_straight`."""
    alphas, sigmas = _levels(schedule, times)
    scale, r = _straight(alphas, sigmas)
    for i in range(len(times) - 1):
        slope = _slope(x, denoise(x, times[i]), scale[i], sigmas[i])
        x = scale[i + 1] * (x / scale[i] + (r[i + 1] - r[i]) * slope)
    return x


def heun(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
) -> Tensor:
    """Heun's second-order method (Karras et al. 2022, alg. 1), see `_straight`.

    The last step is Euler's, as the slope is unknown at t = 0, where walks mostly end: n steps cost
    2 n - 1 calls.
    """
    alphas, sigmas = _levels(schedule, times)
    scale, r = _straight(alphas, sigmas)
    for i in range(len(times) - 1):
        y, step = x / scale[i], r[i + 1] - r[i]
        slope = _slope(x, denoise(x, times[i]), scale[i], sigmas[i])
        x = scale[i + 1] * (y + step * slope)
        if i + 2 < len(times):
            ahead = _slope(x, denoise(x, times[i + 1]), scale[i + 1], sigmas[i + 1])
            x = scale[i + 1] * (y + step * (slope + ahead) / 2)
    return x


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, alg. 2: second order, from two answers in log-SNR.

    The first and last step are of first order, and so is the second when the walk starts from pure
    noise, whose log-SNR is infinitely far away.
    """
    alphas, sigmas = _levels(schedule, times)
    half_log_snr = (schedule.log_snr(times) / 2).tolist()
    previous = x
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        lead = 0.0
        if 0 < i < len(times) - 2:
            step = half_log_snr[i + 1] - half_log_snr[i]
            lead = step / (2 * (half_log_snr[i] - half_log_snr[i - 1]))  # 1 / (2 r) of the paper
        ahead = x0 + lead * (x0 - previous)
        shrink = sigmas[i + 1] / sigmas[i]
        x = shrink * x + (alphas[i + 1] - shrink * alphas[i]) * ahead
        previous = x0
    return x


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ancestral": ancestral,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
}


def nfe(sampler: str, steps: int) -> int:
    """Model calls that `steps` steps of the sampler cost. Raises UserError for an unknown name."""
    if sampler not in SAMPLERS:
        raise UserError(f"There is no sampler '{sampler}'.{suggest(sampler, SAMPLERS)}")
    return 2 * steps - 1 if sampler == "heun" else steps


def steps_for(sampler: str, calls: int) -> int:
    """The steps that cost exactly `calls` model calls.

    Raises UserError, naming the nearest possible costs, when no number of steps does.
    """
    steps = (calls + 1) // 2 if sampler == "heun" else calls
    if steps < 1 or nfe(sampler, steps) != calls:
        near = sorted({nfe(sampler, max(n, 1)) for n in (steps, steps + 1)})
        choices = " or ".join(str(cost) for cost in near)
        raise UserError(f"{sampler} cannot spend exactly {calls} model calls. Choose {choices}.")
    return steps


def _levels(schedule: Schedule, times: Tensor) -> tuple[list[float], list[float]]:
    return schedule.alpha(times).tolist(), schedule.sigma(times).tolist()


def _posterior_std(alphas: list[float], sigmas: list[float]) -> float:
    """Deviation of q(x_s | x_t, x0) for [t, s], of any schedule (Kingma et al. 2021, app. A)."""
    carried = alphas[0] / alphas[1] * sigmas[1] / sigmas[0]  # share of the noise of t that s has
    return sigmas[1] * math.sqrt(1 - carried**2)


def _straight(alphas: list[float], sigmas: list[float]) -> tuple[list[float], list[float]]:
    """Scale (alpha + sigma) and time r = sigma / scale that make any schedule a rectified flow.

    y = x / scale = (1 - r) x0 + r eps, so dy/dr = eps - x0. In these coordinates a constant answer
    of the denoiser gives a straight line, every number is finite at both ends, and one Euler step
    from noise to r = 0 lands on that answer; rectified flow itself has scale = 1 and r = t.
    """
    scale = [alpha + sigma for alpha, sigma in zip(alphas, sigmas)]
    return scale, [sigma / total for sigma, total in zip(sigmas, scale)]


def _slope(x: Tensor, x0: Tensor, scale: float, sigma: float) -> Tensor:
    """eps - x0, with eps = (x - alpha x0) / sigma and scale = alpha + sigma."""
    return (x - scale * x0) / sigma
