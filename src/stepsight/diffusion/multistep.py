"""Multistep samplers, which use the answers of earlier steps: DPM-Solver++ 2M, UniPC and PLMS.

The first two, of second order, solve the ODE in h, the growth of half the log SNR over a step,
where a constant answer m gives x' = sigma'/sigma x + alpha' (1 - exp(-h)) m exactly. They differ in
the m they put there. First and last step are of first order, and a step that follows one from pure
noise (h infinite) as good as that: what was answered infinitely far away says nothing.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise, levels
from stepsight.schedule import Schedule

# Adams and Bashforth's weights of the last answer, the one before, ...
ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


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


def plms(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """PLMS (Liu et al. 2022, eq. 12): steps of DDIM along a noise that up to four answers foretell.

    The first step is DDIM's. Where the second visit is repeated, as diffusers does, its first
    answer corrects that step, as Heun's method would.
    """
    alphas, sigmas = levels(schedule, times)
    origin, history = x, []
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        eps = (x - alphas[i] * x0) / sigmas[i]
        if i == 1 and times[1] == times[2] and len(times) > 3:
            x = _drifted(origin, (eps + history[0]) / 2, alphas[:2], sigmas[:2])
            continue
        history = [eps, *history[:3]]
        if i == 0:
            x = alphas[1] * x0 + sigmas[1] * eps
        else:
            weighed = (w * past for w, past in zip(ADAMS[len(history) - 1], history))
            x = _drifted(x, reduce(add, weighed), alphas[i : i + 2], sigmas[i : i + 2])
    return x


def _drifted(x: Tensor, eps: Tensor, alphas: list[float], sigmas: list[float]) -> Tensor:
    """DDIM's step [from, to] along a noise, from where there is signal."""
    kept = alphas[1] / alphas[0]
    return kept * x + (sigmas[1] - kept * sigmas[0]) * eps


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
