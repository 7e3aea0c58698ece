"""Samplers that can draw fresh noise on the way: DDIM, ancestral and consistency sampling."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise, StepNoise, levels
from stepsight.schedule import Schedule


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
    alphas, sigmas = levels(schedule, times)
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
    denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, noise: StepNoise, **_: Any
) -> Tensor:
    """Draws from the posterior q(x_s | x_t, x0) (Ho et al. 2020, eq. 6-7): DDIM at full noise.

    `eta` is of no effect: it belongs to ddim.
    """
    return ddim(denoise, x, times, schedule=schedule, noise=noise, eta=1.0)


def consistency(
    denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, noise: StepNoise, **_: Any
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, alg. 1): answer, noise afresh, answer.

    Nothing of x is kept but its answer, so one step is the network's one-step answer, and the last
    answer is the result, wherever the trajectory ends. It is exact for a network that answers a
    sample, as consistency models do; a network trained on squared error answers an average, which
    stays blurred. `eta` is of no effect: it belongs to ddim.
    """
    alphas, sigmas = levels(schedule, times)
    x = denoise(x, times[0])
    for i in range(1, len(times) - 1):
        x = denoise(alphas[i] * x + sigmas[i] * noise(i - 1), times[i])
    return x


def _posterior_std(alphas: list[float], sigmas: list[float]) -> float:
    """Deviation of q(x_s | x_t, x0) for [t, s], of any schedule (Kingma et al. 2021, app. A)."""
    carried = alphas[0] / alphas[1] * sigmas[1] / sigmas[0]  # share of the noise of t that s has
    return sigmas[1] * math.sqrt(1 - carried**2)
