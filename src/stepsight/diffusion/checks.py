"""What settings of the diffusion process, and numbers of model calls, are refused."""

from __future__ import annotations

import math

import torch

from stepsight.diffusion.config import CONVENTIONS, DiffusionSettings, known, nfe, sampler_spec
from stepsight.diffusion.times import visited_times
from stepsight.errors import UserError
from stepsight.schedule import LEVELS, Schedule


def check_settings(settings: DiffusionSettings, schedule: Schedule) -> None:
    """Raise UserError for settings under which no training or sampling could work."""
    _check_numbers(settings)
    _check_betas(settings)
    _check_convention(settings)
    _check_levels(settings, schedule)
    if settings.prediction == "eps" and schedule.alpha(torch.ones(())) == 0:
        raise UserError(
            "diffusion.prediction: 'eps' says nothing about the image at t = 1, which is pure noise"
            f" under the schedule '{settings.schedule}' with these settings. Choose prediction 'v'"
            " or 'x', or a schedule other than rectified_flow without zero_terminal_snr."
        )
    reads = sampler_spec(settings.sampler).variance
    if (settings.variance == "trained" or reads) and settings.objective == "end_to_end":
        raise UserError(
            "diffusion.variance: 'trained' and sampler 'ancestral_learned' need noise levels, which"
            " objective 'end_to_end' does not draw. Choose variance 'ignored' and another sampler,"
            " or objective 'denoising'."
        )


def _check_numbers(settings: DiffusionSettings) -> None:
    for name in ("shift", "sampling_shift"):
        value = getattr(settings, name)
        if value <= 0:
            raise UserError(f"diffusion.{name}: {value} is not above 0. 1 means no shift.")
    if not 0 <= settings.temperature < math.inf:
        raise UserError(
            f"diffusion.temperature: {settings.temperature}. Give 0 to start from zeros, 1 for the "
            "diffusion's own noise, or a number between or above."
        )
    if not 0 <= settings.guidance < math.inf:
        raise UserError(
            f"diffusion.guidance: {settings.guidance}. Give 1 to switch it off, a number above to "
            "move away from the answer without label, or 0 to have that."
        )
    if settings.guided_channels < 0:
        raise UserError(f"diffusion.guided_channels: {settings.guided_channels}. Give 0 for all.")
    if not 0 <= settings.picture < 1 or (
        settings.picture and settings.schedule != "rectified_flow"
    ):
        raise UserError(
            f"diffusion.picture: {settings.picture}. Give 0 for paths from noise alone; paths of "
            "schedule rectified_flow can have a share of the picture, below 1."
        )
    if settings.told is not None and (
        settings.objective != "end_to_end" or not 0 <= settings.told < LEVELS
    ):
        raise UserError(
            f"diffusion.told: {settings.told}. Objective 'end_to_end' can tell the network a level "
            f"from 0 to {LEVELS - 1}; others tell it the level that is asked for."
        )
    if not 0 <= settings.eta <= 1:
        raise UserError(
            f"diffusion.eta: {settings.eta} lies outside 0 (no noise) to 1 (ancestral)."
        )


def _check_levels(settings: DiffusionSettings, schedule: Schedule) -> None:
    """Refuse what needs whole levels where the schedule has none, or a shift moves them."""
    _check_custom(settings)
    # raises for a trajectory that the schedule does not have
    visited_times(settings, schedule, len(settings.sampling_times) or 1)
    if settings.variance == "trained" and not schedule.tabulated:
        raise UserError(
            "diffusion.variance: 'trained' is defined on variance-preserving schedules. Choose"
            " schedule linear, scaled_linear or cosine, or variance 'ignored'."
        )
    _check_shift(settings)


def _check_convention(settings: DiffusionSettings) -> None:
    """Refuse what the scheduler of that name does not do."""
    known("convention", settings.convention, ("stepsight", *CONVENTIONS))
    name, flow = settings.convention, settings.schedule == "rectified_flow"
    if name not in CONVENTIONS:
        return
    on, samplers = CONVENTIONS[name].on, CONVENTIONS[name].samplers
    spacings = ("linspace",) if on == "flow" else ("trailing", "leading", "linspace", "karras")
    if on == "levels":
        spacings = ("lcm",) if name == "LCMScheduler" else spacings[:3]
    allowed = {"sampler": samplers, "spacing": spacings, "sampling_schedule": ("trained",)}
    for key, values in allowed.items():
        if getattr(settings, key) not in values:
            raise UserError(
                f"diffusion.convention: {name} has no {key} '{getattr(settings, key)}'. Choose "
                f"from {', '.join(values)}, or convention 'stepsight'."
            )
    if flow != (on == "flow"):
        raise UserError(
            f"diffusion.convention: {name} does not walk schedule '{settings.schedule}'. Choose"
            " convention 'stepsight'."
        )


def _check_betas(settings: DiffusionSettings) -> None:
    """Refuse betas that make no schedule, or that none reads."""
    betas, schedule = settings.betas, settings.schedule
    if betas and schedule not in ("linear", "scaled_linear"):
        raise UserError(f"diffusion.betas: the schedule '{schedule}' has none to choose. Leave ().")
    if betas and not (len(betas) == 2 and all(0 < beta < 1 for beta in betas)):
        raise UserError(
            f"diffusion.betas: {list(betas)}. Give the first and the last, both between 0 and 1."
        )


def _check_shift(settings: DiffusionSettings) -> None:
    """Refuse a shift of noise levels that other settings name."""
    free = {"spacing": ("trailing", "linspace", "log_snr"), "final": ("clean",)}
    free |= {"sampling_schedule": ("trained",)}
    for key, movable in free.items():
        value = getattr(settings, key)
        if value not in movable and settings.sampling_shift != 1:
            raise UserError(
                f"diffusion.sampling_shift: {settings.sampling_shift} moves the levels that {key}"
                f" '{value}' names. Set it to 1."
            )


def _check_custom(settings: DiffusionSettings) -> None:
    """Refuse times that make no trajectory, and times that no spacing reads."""
    times = settings.sampling_times
    if (settings.spacing == "custom") != bool(times):
        raise UserError(
            f"diffusion.sampling_times: {list(times)} with spacing '{settings.spacing}'. Spacing"
            " 'custom' visits the times given there, and no other spacing reads them."
        )
    falling = all(later < sooner for sooner, later in zip(times, times[1:]))
    end = 0 if settings.final == "clean" else 1 / LEVELS
    if times and not (times[0] == 1 and falling and times[-1] > end):
        raise UserError(
            f"diffusion.sampling_times: {list(times)}. Give falling times, the first 1.0 and the"
            f" last above {end}, such as 1.0, 0.6, 0.2."
        )


def check_custom_steps(settings: DiffusionSettings, steps: int) -> None:
    """Raise UserError where custom times are not as many as the steps."""
    times = settings.sampling_times
    if times and len(times) != steps:
        cost = nfe(settings.sampler, len(times))
        raise UserError(
            f"diffusion.sampling_times: the {len(times)} times cost {cost} model calls of"
            f" {settings.sampler}, not {nfe(settings.sampler, steps)}. Ask for {cost}."
        )


def check_single(calls: int) -> None:
    """Raise UserError for more than the one call of objective "end_to_end"."""
    if calls != 1:
        raise UserError(
            f"diffusion.objective: 'end_to_end' answers in one model call, not {calls}. Set"
            " evaluation.nfe to 1, and evaluation.members too: without noise all members are equal."
        )
