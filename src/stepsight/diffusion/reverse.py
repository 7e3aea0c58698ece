"""Ancestral sampling by other variances than the posterior's (Ho et al. 2020, section 3.2).

A step's mean is always that of q(x_s | x_t, x0). Its variance may be that of the posterior,
beta-tilde (`stochastic.ancestral`), that of the forward step, beta, or one in between that the
network has learned: log variance = (v + 1)/2 log beta + (1 - v)/2 log beta-tilde (Nichol & Dhariwal
2021, eq. 15, v counted from -1 to 1). As beta / beta-tilde is sigma^2(t) / sigma^2(s) on every
schedule, the deviation is sqrt(beta-tilde) (sigma(t) / sigma(s))^share, with a share of 1, or
(v + 1)/2. A step to clean data draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise, StepNoise, levels
from stepsight.schedule import Schedule


def ancestral_large(
    denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, noise: StepNoise, **_: Any
) -> Tensor:
    """Ancestral sampling with the forward step's variance ("fixed large")."""

    def answer(x: Tensor, t: Tensor) -> tuple[Tensor, float]:
        return denoise(x, t), 1.0

    return _walk(answer, x, times, schedule, noise)


def ancestral_learned(
    denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, noise: StepNoise, **_: Any
) -> Tensor:
    """Ancestral sampling with the learned variance; `denoise` answers x0, then v: "b 2c h w"."""

    def answer(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x0, v = denoise(x, t).chunk(2, dim=1)
        return x0, (v + 1) / 2

    return _walk(answer, x, times, schedule, noise)


def _walk(
    answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float]],
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    noise: StepNoise,
) -> Tensor:
    """answer: of x and its time, x0 and the share of the forward step's log variance."""
    alphas, sigmas = levels(schedule, times)
    for i in range(len(times) - 1):
        (alpha, below), (sigma, after) = alphas[i : i + 2], sigmas[i : i + 2]
        x0, share = answer(x, times[i])
        carried = alpha / below * after / sigma  # share of the noise of t that s has
        fresh = after * math.sqrt(max(1 - carried**2, 0.0))  # of the posterior
        eps = (x - alpha * x0) / sigma
        x = below * x0 + after * carried * eps
        if fresh > 0:
            x = x + fresh * (sigma / after) ** share * noise(i)
    return x
