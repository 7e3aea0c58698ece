"""Multistep samplers, second order from the answers of earlier steps: DPM-Solver++ 2M and UniPC.

Both solve the ODE in h, the growth of half the log SNR over a step, where a constant answer m gives
x' = sigma'/sigma x + alpha' (1 - exp(-h)) m exactly. They differ in the m they put there. First
and last step are of first order, and a step that follows one from pure noise (h infinite) as good
as that: what was answered infinitely far away says nothing.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise, levels
from stepsight.schedule import Schedule


def dpmpp_2m(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, alg. 2: m is extrapolated from the last two answers."""
    alphas, sigmas = levels(schedule, times)
    gaps = _gaps(schedule, times)
    before = x
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        answer = x0 + _lead(gaps, i) * (x0 - before)
        x = _step(x, answer, alphas[i : i + 2], sigmas[i : i + 2])
        before = x0
    return x


def unipc(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """UniPC of order 2 with B(h) = exp(-h) - 1 (Zhao et al. 2023, alg. 5-8, "bh2").

    The predictor is the step of `dpmpp_2m`. At the next level the answer given there corrects the
    step that led to it, without another call.
    """
    alphas, sigmas = levels(schedule, times)
    gaps = _gaps(schedule, times)
    origin = before = older = x  # where the last step began; the last two answers
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        if i > 0:
            answer = _corrected(gaps, i - 1, x0, before, older)
            x = _step(origin, answer, alphas[i - 1 : i + 1], sigmas[i - 1 : i + 1])
        origin, before, older = x, x0, before
        answer = x0 + _lead(gaps, i) * (x0 - older)
        x = _step(x, answer, alphas[i : i + 2], sigmas[i : i + 2])
    return x


def _gaps(schedule: Schedule, times: Tensor) -> list[float]:
    """h of every step."""
    return (schedule.log_snr(times) / 2).diff().tolist()


def _lead(gaps: list[float], i: int) -> float:
    """How far step i goes on with the last change of the answer: 1 / (2 r) of the papers."""
    return gaps[i] / (2 * gaps[i - 1]) if 0 < i < len(gaps) - 1 else 0.0


def _corrected(gaps: list[float], i: int, ahead: Tensor, here: Tensor, before: Tensor) -> Tensor:
    """m of step i, from the answers at its end, at its start and a step earlier.

    The weights solve the paper's eq. 6: rho + rho' = b1 and -k rho + rho' = b2, with k the ratio of
    the earlier step's h to this one's, and b1, b2 from phi-functions. Its first step has rho' = 1/2
    alone (the paper's "simplified" first order).
    """
    if i == 0:
        return (here + ahead) / 2
    growth, k = -math.expm1(-gaps[i]), gaps[i - 1] / gaps[i]
    b1 = 1 / growth - 1 / gaps[i]
    b2 = 1 / growth - 2 * b1 / gaps[i]
    rho = (b1 - b2) / (1 + k)
    return here + rho / k * (here - before) + (b1 - rho) * (ahead - here)


def _step(x: Tensor, answer: Tensor, alphas: list[float], sigmas: list[float]) -> Tensor:
    """The exact step [from, to] for a constant answer; alpha' (1 - exp(-h)), finite at all ends."""
    shrink = sigmas[1] / sigmas[0]
    return shrink * x + (alphas[1] - shrink * alphas[0]) * answer
