"""Samplers that can draw fresh noise on the way: DDIM, ancestral and consistency sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise, StepNoise, levels, targets
from stepsight.schedule import Schedule


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    eta: float = 0.0,
    ends: Tensor | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); `eta` in [0, 1] scales its random part (eq. 16).

    ends "n": the times to which steps go, where that is not the next visit.
    """
    alphas, sigmas = levels(schedule, times)
    to_alphas, to_sigmas = targets(schedule, times, ends)
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        fresh = eta * _posterior_std((alphas[i], to_alphas[i]), (sigmas[i], to_sigmas[i]))
        kept = math.sqrt(max(to_sigmas[i] ** 2 - fresh**2, 0.0))
        eps = (x - alphas[i] * x0) / sigmas[i]
        x = to_alphas[i] * x0 + kept * eps
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
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    *,
    schedule: Schedule,
    noise: StepNoise,
    boundary: float | None = None,
    **_: Any,
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, alg. 1): answer, noise afresh, answer.

    Nothing of x is kept but its answer, so one step is the network's one-step answer, and the last
    answer is the result, wherever the trajectory ends. It is exact for a network that answers a
    sample, as consistency models do; a network trained on squared error answers an average, which
    stays blurred. `eta` is of no effect: it belongs to ddim.

    boundary: that of latent consistency models (Luo et al. 2023, eq. 9), whose answer has the more
    of x the closer `boundary` times the level comes to the deviation of their data, 1/2.
    """
    alphas, sigmas = levels(schedule, times)
    told = schedule.condition(times).tolist()

    def answer(x: Tensor, i: int) -> Tensor:
        x0 = denoise(x, times[i])
        if boundary is None:
            return x0
        length = math.hypot(boundary * told[i], 0.5)
        return boundary * told[i] / length * x0 + (0.5 / length) ** 2 * x

    x = answer(x, 0)
    for i in range(1, len(times) - 1):
        x = answer(alphas[i] * x + sigmas[i] * noise(i - 1), i)
    return x


def _posterior_std(alphas: Sequence[float], sigmas: Sequence[float]) -> float:
    """Deviation of q(x_s | x_t, x0) for [t, s], of any schedule (Kingma et al. 2021, app. A)."""
    carried = alphas[0] / alphas[1] * sigmas[1] / sigmas[0]  # share of the noise of t that s has
    return sigmas[1] * math.sqrt(1 - carried**2)
