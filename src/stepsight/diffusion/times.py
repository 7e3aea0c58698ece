"""The times of a trajectory: spacing, another schedule's noise levels, part of the way, shift."""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.diffusion.config import DiffusionSettings
from stepsight.schedule import Schedule, named_schedule


def visited_times(
    settings: DiffusionSettings, trained: Schedule, steps: int, strength: float = 1.0
) -> Tensor:
    """`steps + 1` decreasing float64 times: the visits, then the time where the trajectory ends.

    The visits start at `strength` (spacing "leading" below it), and are spaced as `Schedule.times`
    says; the shift moves them towards noise. With a `sampling_schedule` they have the noise levels
    that a model of that schedule would visit, over the part of it that is no noisier than the
    trained schedule at `strength`: another discretisation of the same noise.

    Raises UserError as `Schedule.times` does.
    """
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
        if settings.spacing != "leading":
            times[0] = start
    return shifted(times, settings.sampling_shift)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise (shift above 1) or data: s t / (1 + (s - 1) t), which keeps the
    ends. Esser et al. 2024, eq. 23, for resolution; here for conditions that already say much."""
    return shift * t / (1 + (shift - 1) * t)


def _unshifted(t: float, shift: float) -> float:
    """The inverse of `shifted`, exact at 1."""
    return t / (t + shift * (1 - t))
