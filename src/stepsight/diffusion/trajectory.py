"""What samplers share: the signature of a trajectory from noise to data, and its noise levels.

A sampler is `(denoise, x, times, *, schedule, noise, eta) -> x`:
* `denoise(x, t)` answers the expected clean "b c h w" for x "b c h w" at the scalar time t;
* `times` "n+1" decreases from the time of `x` to the end of the trajectory (`visited_times`);
* options of a published convention (`times.step_options`) are given where there are any;
* `noise(i)` is the noise "b c h w" of step i, and `eta` how much of it DDIM adds; what a sampler
  does not read it leaves in its `**_`.

Coefficients are float64 numbers, so x keeps its dtype and device. No formula divides by alpha or by
the noise level of the last time, so pure noise (alpha = 0) and clean data (sigma = 0) are ordinary
ends.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from stepsight.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
StepNoise = Callable[[int], Tensor]


def levels(schedule: Schedule, times: Tensor) -> tuple[list[float], list[float]]:
    """alpha and sigma at the times "n", as numbers."""
    return schedule.alpha(times).tolist(), schedule.sigma(times).tolist()


def targets(
    schedule: Schedule, times: Tensor, ends: Tensor | None
) -> tuple[list[float], list[float]]:
    """The same where steps go: to `ends` "n", or without them to the next of `times` "n+1"."""
    if ends is not None:
        return levels(schedule, ends)
    alphas, sigmas = levels(schedule, times)
    return alphas[1:], sigmas[1:]
