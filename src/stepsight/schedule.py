"""Noise schedules: how much signal and noise a time holds, and which times a sampler visits.

Time runs from t = 0 (clean) to t = 1 (noisiest), and `x_t = alpha(t) x0 + sigma(t) eps`.

Two families:
* rectified flow (Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 20 with sigma_min = 0):
  alpha = 1 - t, sigma = t;
* variance preserving (Ho et al. 2020): alpha^2 + sigma^2 = 1, tabulated at N = 1000 levels. Such a
  pair is one angle, alpha = cos(phi), sigma = sin(phi). Level i sits at t = (i + 1) / N, the clean
  end phi = 0 at t = 0, and a monotone cubic joins them, so that both ends are exact and every
  derivative is finite.

All functions take a tensor of times of any shape and dtype and answer in kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stepsight.diffusion.config import CONVENTIONS, DiffusionSettings, Spacing
from stepsight.errors import UserError, suggest
from stepsight.noise_levels import (
    ENDS,
    LEAST,
    LEVELS,
    PublishedTable,
    angle_table,
    joined,
    spaced_levels,
)

KARRAS_RHO = 7.0  # Karras et al. 2022, below eq. 5
Final = Literal["clean", "first_level"]
LEADING = ("leading", "leading_less")  # spacings that name levels and start below the noisiest


class Schedule(ABC):
    """The path from data to noise, `x_t = alpha(t) x0 + sigma(t) eps`."""

    tabulated: ClassVar[bool]  # whether it has whole levels

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal level, exactly 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise level, exactly 0 at t = 0."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """d sigma / dt."""

    @abstractmethod
    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (p, q) of `v = p x0 + q eps`, scaled so that alpha q - sigma p = 1."""

    @abstractmethod
    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`; levels beyond the schedule's reach give its nearest end."""

    @abstractmethod
    def condition(self, t: Tensor) -> Tensor:
        """The time as the network is given it, float32."""

    @abstractmethod
    def snap(self, level: Tensor) -> Tensor:
        """The nearest level at which published networks were trained."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2): infinite at t = 0, and minus infinite where alpha = 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def coordinates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, r) with x_t = scale ((1 - r) x0 + r eps): r runs from 0 to 1, finite everywhere.

        In y = x / scale the probability-flow ODE is dy/dr = eps - x0, as for rectified flow, whose
        scale is 1 and whose r is t.
        """
        sigma = self.sigma(t)
        scale = self.alpha(t) + sigma
        return scale, sigma / scale

    def time_of_coordinate(self, r: Tensor) -> Tensor:
        """Inverse of the r of `coordinates`."""
        return self.time_of_log_snr(2 * ((1 - r) / r).log())

    def times(
        self,
        steps: int,
        spacing: Spacing,
        *,
        offset: int = 1,
        final: Final = "clean",
        custom: Sequence[float] = (),
        start: float = 1.0,
    ) -> Tensor:
        """`steps + 1` decreasing float64 times: the visits, then the end of the trajectory.

        The visits, by `spacing` (Lin et al. 2024, table 2, names the first three):
        * "trailing" divides time evenly: 4 steps of a tabulated schedule visit its levels 999, 749,
          499, 249. Where the steps do not divide 1000, diffusers goes from each visit to a level
          up to one away from the next visit; here a step ends where the next begins.
        * "leading" visits every (1000 // steps)-th level from `offset` up: 10 steps with offset 1
          visit 901, 801, ..., 1, and start there from unit noise, as published samplers do.
        * "leading_less" visits what one step more would, but for the noisiest, as pix2gestalt does:
          3 steps visit 501, 251, 1, and start from unit noise.
        * "linspace" spreads the visits evenly from the last level to the first.
        * "respaced" does so by adding up the distance, as the published code of Nichol & Dhariwal
          2021 and DiT does: half levels may be rounded otherwise.
        * "lcm" picks evenly among the levels of consistency distillation: 4 steps visit 999, 759,
          499, 259 (Luo et al. 2023).
        * "log_snr" spaces them evenly in log SNR (Lu et al. 2022).
        * "karras" spaces them evenly in (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5).
        * "custom" visits the `steps` times of `custom`.
        All but the two of "leading" start at t = 1.

        The end is t = 0 ("clean") or level 0, t = 1/1000 ("first_level": diffusers'
        `set_alpha_to_one: false`). No two times are equal, but for one case: a last visit at level
        0 before an end there. That step is a model call that moves nothing, as in diffusers.

        A `start` below 1 draws the visits in to between it and the end, off whole levels.

        Raises UserError for what the levels cannot hold, or where there are none to name.
        """
        if not 1 <= steps <= LEVELS:
            raise UserError(f"Cannot sample in {steps} steps. Choose from 1 to {LEVELS} steps.")
        if not self.tabulated and (spacing in LEADING or final == "first_level"):
            raise UserError(
                "diffusion.schedule: spacing 'leading' and final 'first_level' name levels, which"
                " rectified_flow does not have. Choose spacing 'trailing' and final 'clean'."
            )
        end = torch.tensor(0 if final == "clean" else 1 / LEVELS, dtype=torch.float64)
        if not end < start <= 1:
            raise UserError(f"Cannot sample from time {start} to {end}. Start above that, up to 1.")
        part = (start - end) / (1 - end)
        if spacing in ("log_snr", "karras"):
            first = 1 if self.alpha(torch.ones(())) > 0 else 1 - 1 / LEVELS
            finite = torch.tensor([first, 1 / LEVELS], dtype=torch.float64)
            visited = self._even_levels(steps, spacing, torch.lerp(end, finite, part))
        else:
            visited = torch.lerp(end, self._visits(steps, spacing, offset, custom), part)
        if spacing not in LEADING:
            visited[0] = start
        return torch.cat([visited.maximum(end), end[None]])  # rounding can leave a visit below it

    def _visits(self, steps: int, spacing: Spacing, offset: int, custom: Sequence[float]) -> Tensor:
        """Visits over all of time, float64."""
        if spacing == "custom":
            assert len(custom) == steps, "custom times are as many as the steps"
            return torch.tensor(custom, dtype=torch.float64)
        return spaced_levels(steps, spacing, offset, self.snap) / LEVELS

    def _even_levels(self, steps: int, spacing: Spacing, ends: Tensor) -> Tensor:
        """Visits between two times whose noise levels are finite, even in a measure of these."""
        log_snr = self.log_snr(ends)
        if spacing == "log_snr":
            low, high = log_snr.tolist()
            return self.time_of_log_snr(torch.linspace(low, high, steps, dtype=torch.float64))
        low, high = (-log_snr / 2 / KARRAS_RHO).exp().tolist()  # (sigma / alpha)^(1 / rho)
        roots = torch.linspace(low, high, steps, dtype=torch.float64)
        return self.time_of_log_snr(-2 * KARRAS_RHO * roots.log())


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Straight lines from data to noise: alpha = 1 - t, sigma = t."""

    tabulated = False

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """v = eps - x0, the slope of the line."""
        return self.d_alpha(t), self.d_sigma(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)

    def condition(self, t: Tensor) -> Tensor:
        """1000 t, as in published rectified-flow models."""
        return (LEVELS * t).float()

    def snap(self, level: Tensor) -> Tensor:
        """Every level: training times are continuous."""
        return level


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """A table of betas (Ho et al. 2020), made continuous through its angle."""

    name: str  # row of ENDS
    zero_terminal_snr: bool = False
    betas: tuple[float, ...] = ()  # first and last, where they are not the usual ones
    published: PublishedTable | None = None
    tabulated = True

    def alpha(self, t: Tensor) -> Tensor:
        # sin of the complement, not cos: exactly 0 for an angle of pi / 2
        return torch.sin(math.pi / 2 - self._angle(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t)).to(t.dtype)

    def d_alpha(self, t: Tensor) -> Tensor:
        return -self.sigma(t) * self._d_angle(t).to(t.dtype)

    def d_sigma(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self._d_angle(t).to(t.dtype)

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """v = alpha eps - sigma x0, the slope over the angle (Salimans & Ho 2022, app. D)."""
        return -self.sigma(t), self.alpha(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """By bisection, as the angle grows with t: tan(angle) = exp(-log_snr / 2)."""
        wide = log_snr.double() if log_snr.device.type == "cpu" else log_snr.float()
        angle = torch.atan(torch.exp(-wide / 2))
        low, high = torch.zeros_like(angle), torch.ones_like(angle)
        for _ in range(54):  # more than the bits of a float64
            middle = (low + high) / 2
            below = self._angle(middle) < angle
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high.to(log_snr.dtype)

    def coordinates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma / alpha), where the schedule leaves signal at t = 1: x_t = scale (x0 + r
        eps), and dy/dr = eps (Karras et al. 2022). Else as for every schedule."""
        if self.zero_terminal_snr:
            return super().coordinates(t)
        alpha = self.alpha(t)
        return alpha, self.sigma(t) / alpha

    def time_of_coordinate(self, r: Tensor) -> Tensor:
        if self.zero_terminal_snr:
            return super().time_of_coordinate(r)
        return self.time_of_log_snr(-2 * r.log())

    def condition(self, t: Tensor) -> Tensor:
        """The level's index, continuous in t: what published networks were trained on."""
        level = LEVELS * t - 1
        return (level.round() if self.published and self.published.whole else level).float()

    def snap(self, level: Tensor) -> Tensor:
        """Whole levels."""
        return level.round()

    def _angle(self, t: Tensor) -> Tensor:
        """Cubic Hermite interpolation of the angle, in the precision of `angle_table`."""
        u, left, right, slope_left, slope_right = self._piece(t)
        if self.published and self.published.between != "angle":
            return joined(self.published.between, u, left, right)[0]
        bend = u * (1 - u) * ((1 - u) * slope_left - u * slope_right)
        return torch.lerp(left, right, u**2 * (3 - 2 * u)) + bend

    def _d_angle(self, t: Tensor) -> Tensor:
        """Derivative of `_angle` over t, likewise."""
        u, left, right, slope_left, slope_right = self._piece(t)
        if self.published and self.published.between != "angle":
            return LEVELS * joined(self.published.between, u, left, right)[1]
        ends = (1 - u) * (1 - 3 * u) * slope_left + u * (3 * u - 2) * slope_right
        return LEVELS * (6 * u * (1 - u) * (right - left) + ends)

    def _piece(self, t: Tensor) -> tuple[Tensor, ...]:
        """Place within the interval holding t, angle at both ends, slope (per level) at both."""
        least = self.published.least if self.published else None
        table = self.name, self.betas, self.zero_terminal_snr, least
        angles, slopes = angle_table(*table, t.device)
        level = t.to(angles.dtype) * LEVELS
        left = level.long().clamp(0, LEVELS - 1)
        return level - left, angles[left], angles[left + 1], slopes[left], slopes[left + 1]


ZERO_SNR = "_zero_snr"  # ends the names of schedules that are rescaled to zero terminal SNR


def named_schedule(name: str) -> Schedule:
    """A schedule by its full name. Raises UserError for an unknown name."""
    base = name.removesuffix(ZERO_SNR)
    if name == "rectified_flow":
        return RectifiedFlow()
    if base not in ENDS:
        known = suggest(name, ["rectified_flow", *ENDS, *(name + ZERO_SNR for name in ENDS)])
        raise UserError(f"diffusion.schedule: there is no schedule '{name}'.{known}")
    return VariancePreserving(base, zero_terminal_snr=base != name)


def build_schedule(settings: DiffusionSettings) -> Schedule:
    """The schedule the settings name, with the table that their convention has.

    Raises UserError for an unknown name.
    """
    rescaled = settings.zero_terminal_snr and settings.schedule in ENDS
    schedule = named_schedule(settings.schedule + (ZERO_SNR if rescaled else ""))
    if not isinstance(schedule, VariancePreserving):
        return schedule
    return replace(schedule, betas=settings.betas, published=_published_table(settings))


def _published_table(settings: DiffusionSettings) -> PublishedTable | None:
    """What the class of diffusers that the settings follow does at levels and between them."""
    convention = CONVENTIONS.get(settings.convention)
    if convention is None:
        return None
    if convention.on == "levels":
        return PublishedTable()
    if settings.spacing == "karras":
        return PublishedTable(LEAST, "power", whole=convention.on == "log_snr")
    return PublishedTable(LEAST, "line" if convention.on == "sigma" else "angle")
