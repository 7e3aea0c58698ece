"""Runge-Kutta samplers: Euler, Heun and midpoint on the probability-flow ODE.

In the coordinates of the schedule (`Schedule.coordinates`), y = x / scale and r, the ODE (Song et
al. 2021, eq. 13) is dy/dr = (y - x0) / r with x0 the denoiser's answer: a constant answer gives the
straight line from y to x0 at r = 0. Euler's step follows that line, which is the step of DDIM in
any coordinates. With a second answer x0', at r', the second-order methods add to it a multiple of
x0 - x0', found by putting Euler's step into their formulas. In this form no large numbers cancel,
however noisy the start.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepsight.diffusion.trajectory import Denoise
from stepsight.schedule import Schedule


def euler(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """Euler's method."""
    scale, r = _coordinates(schedule, times)
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        x = scale[i + 1] * _along(x / scale[i], x0, r[i + 1] / r[i])
    return x


def heun(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """Heun's second-order method (Karras et al. 2022, alg. 1).

    The last step is Euler's, as the slope is unknown at t = 0, where trajectories mostly end: n
    steps cost 2 n - 1 calls. In steps over which r falls to a small part, as from a start that is
    nearly pure noise, the second answer counts r / r' times: such steps want spacing log_snr or
    karras.
    """
    scale, r = _coordinates(schedule, times)
    for i in range(len(times) - 1):
        x0 = denoise(x, times[i])
        y = _along(x / scale[i], x0, r[i + 1] / r[i])
        if i + 2 < len(times):
            ahead = denoise(scale[i + 1] * y, times[i + 1])
            y = y + (1 - r[i] / r[i + 1]) / 2 * (x0 - ahead)
        x = scale[i + 1] * y
    return x


def midpoint(denoise: Denoise, x: Tensor, times: Tensor, *, schedule: Schedule, **_: Any) -> Tensor:
    """The midpoint method: the slope halfway along r, also in the last step; 2 n calls.

    Its second question is asked between the levels visited.
    """
    scale, r = _coordinates(schedule, times)
    halfway = [(here + there) / 2 for here, there in zip(r, r[1:])]
    between = schedule.time_of_coordinate(times.new_tensor(halfway))
    scale_between = _coordinates(schedule, between)[0]
    for i in range(len(times) - 1):
        y, x0 = x / scale[i], denoise(x, times[i])
        middle = scale_between[i] * _along(y, x0, halfway[i] / r[i])
        change = (r[i + 1] - r[i]) / halfway[i] * (x0 - denoise(middle, between[i]))
        x = scale[i + 1] * (_along(y, x0, r[i + 1] / r[i]) + change)
    return x


def _coordinates(schedule: Schedule, times: Tensor) -> tuple[list[float], list[float]]:
    scale, r = schedule.coordinates(times)
    return scale.tolist(), r.tolist()


def _along(y: Tensor, x0: Tensor, share: float) -> Tensor:
    """The point on the line from x0 (share 0) to y (share 1)."""
    return share * y + (1 - share) * x0
