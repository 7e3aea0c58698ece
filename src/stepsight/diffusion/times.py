"""The times of a trajectory: spacing, another schedule's noise levels, part of the way, shift, and
what diffusers' schedulers make of them (`config.CONVENTIONS`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.diffusion.config import CONVENTIONS, DiffusionSettings
from stepsight.errors import UserError
from stepsight.schedule import LEADING, LEVELS, Schedule, named_schedule

LCM_SCALE = 10.0  # of levels, in the boundary weights of latent consistency models


def visited_times(
    settings: DiffusionSettings, trained: Schedule, steps: int, strength: float = 1.0
) -> Tensor:
    """`steps + 1` decreasing float64 times: the visits, then the time where the trajectory ends.

    The visits start at `strength` (spacing "leading" below it), and are spaced as `Schedule.times`
    says; the shift moves them towards noise. With a `sampling_schedule` they have the noise levels
    that a model of that schedule would visit, over the part of it that is no noisier than the
    trained schedule at `strength`: another discretisation of the same noise. Whole trajectories
    under a convention of diffusers visit what that visits.

    Raises UserError as `Schedule.times` does.
    """
    if settings.convention in CONVENTIONS and strength == 1:
        return _published(settings, trained, steps)
    start = _unshifted(strength, settings.sampling_shift)
    visited = settings.sampling_schedule
    levels = trained if visited == "trained" else named_schedule(visited)
    begin = torch.tensor(start, dtype=torch.float64)
    reach = begin if levels == trained else levels.time_of_log_snr(trained.log_snr(begin))
    times = levels.times(
        steps,
        settings.spacing,
        offset=settings.steps_offset,
        final=settings.final,
        custom=settings.sampling_times,
        start=reach.item(),
    )
    if levels != trained:  # where the trained schedule is as noisy as `levels` is at `times`
        equally_noisy = trained.time_of_log_snr(levels.log_snr(times))
        times = torch.where(times == 0, 0.0, equally_noisy)
        if settings.spacing not in LEADING:
            times[0] = start
    return shifted(times, settings.sampling_shift)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise (shift above 1) or data: s t / (1 + (s - 1) t), which keeps the
    ends. Esser et al. 2024, eq. 23, for resolution; here for conditions that already say much."""
    return shift * t / (1 + (shift - 1) * t)


def _unshifted(t: float, shift: float) -> float:
    """The inverse of `shifted`, exact at 1."""
    return t / (t + shift * (1 - t))


def step_options(settings: DiffusionSettings, times: Tensor) -> dict[str, Any]:
    """What the sampler is told of a convention: `ends` "n", the times to which its steps go, and
    `boundary`, the scale of a consistency model's boundary weights."""
    convention = CONVENTIONS.get(settings.convention)
    if convention is None:
        return {}
    if settings.convention == "LCMScheduler":
        return {"boundary": LCM_SCALE}
    visits, end = times[:-1], times[-1]
    if not convention.strided:
        return {}
    ahead = visits - (LEVELS // len(visits)) / LEVELS
    return {"ends": torch.where(ahead * LEVELS < 0.5, end, ahead)}


def start_scale(settings: DiffusionSettings, schedule: Schedule, times: Tensor) -> float:
    """Deviation of the noise that a whole trajectory starts from: 1, but for conventions on sigma,
    which start leading ones alone from unit noise."""
    convention = CONVENTIONS.get(settings.convention)
    if convention is None or convention.on != "sigma" or settings.spacing == "leading":
        return 1.0
    return schedule.sigma(times[0]).item()


def _published(settings: DiffusionSettings, schedule: Schedule, steps: int) -> Tensor:
    """The times "steps+1" of diffusers' scheduler, float64."""
    on, spacing = CONVENTIONS[settings.convention].on, settings.spacing
    count = steps + (on == "log_snr")
    if settings.sampler == "plms":
        visits = _repeated(settings, schedule, steps)
    elif on == "flow":
        first = torch.tensor(1 / LEVELS, dtype=torch.float64)
        # the shift is there twice: in the least level, and on all
        last = shifted(first, settings.sampling_shift).item()
        visits = shifted(
            torch.linspace(1, last, steps, dtype=torch.float64), settings.sampling_shift
        )
    elif spacing == "linspace" or (spacing == "karras" and on == "sigma" and steps == 1):
        levels = np.linspace(0, LEVELS - 1, count)[::-1][:steps].copy()
        visits = (1 + torch.from_numpy(levels if on == "sigma" else levels.round())) / LEVELS
    elif spacing == "leading":
        visits = schedule.times(count, spacing, offset=settings.steps_offset)[:steps]
    else:
        visits = schedule.times(steps, spacing)[:-1]
    end = visits.new_tensor([0 if settings.final == "clean" else 1 / LEVELS])
    return torch.cat([visits, end])


def _repeated(settings: DiffusionSettings, schedule: Schedule, calls: int) -> Tensor:
    """The visits of a PNDMScheduler, which asks at its second twice."""
    if calls == 2:
        raise UserError("A PNDMScheduler makes one model call, or three and more, not 2.")
    visits = schedule.times(max(calls - 1, 1), "leading", offset=settings.steps_offset)[:-1]
    return torch.cat([visits[:2], visits[1:]])
