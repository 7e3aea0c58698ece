"""The whole levels of a schedule: their table, what lies between, and which of them are visited.

Published samplers multiply up their table (Ho et al. 2020) in float32. Of a level near data, whose
noise is little, the rounding is a large part: at level 0 sigma differs by 1e-5 (`scaled_linear`) to
3e-4 (`cosine`) of itself. So there are both: our own table in float64, and the published one, to
the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stepsight.errors import UserError

LEVELS = 1000  # N: tabulated noise levels, and the scale of the number the network is fed
# First and last beta: Ho et al. 2020, section 4; Rombach et al. 2022 (linear in the root).
# The cosine's follow from its formula (Nichol & Dhariwal 2021, eq. 17).
ENDS: dict[str, tuple[float, ...]] = {
    "linear": (1e-4, 2e-2),
    "scaled_linear": (8.5e-4, 1.2e-2),
    "cosine": (),
}
DISTILLED = 50  # levels 19, 39, ..., 999, at which a latent consistency model was trained
LEAST = 2.0**-24  # alpha^2 that published samplers in sigma / alpha leave where it would be 0


@dataclass(frozen=True)
class PublishedTable:
    """The table of diffusers' schedulers, and what they do between its levels."""

    least: float = 0.0  # alpha^2 of a last level that is rescaled to pure noise
    between: Literal["angle", "line", "power"] = "angle"  # ours, or of sigma / alpha
    whole: bool = False  # the network is given the nearest whole level


def signal(name: str, ends: Sequence[float] = (), zero_terminal_snr: bool = False) -> np.ndarray:
    """alpha "n" of all levels, float64. ends: other betas than the usual ones."""
    if name == "cosine":
        betas = _cosine()
    else:
        first, last = ends or ENDS[name]
        betas = (
            np.linspace(first, last, LEVELS)
            if name == "linear"
            else np.linspace(first**0.5, last**0.5, LEVELS) ** 2
        )
    alpha = np.sqrt(np.cumprod(1 - betas))
    return rescale_to_zero_terminal_snr(alpha) if zero_terminal_snr else alpha


def published_signal(
    name: str, ends: Sequence[float] = (), zero_terminal_snr: bool = False, least: float = 0.0
) -> np.ndarray:
    """The same as diffusers' schedulers have it: alpha^2 is multiplied up in float32."""
    if name == "cosine":
        betas = torch.from_numpy(_cosine()).float()
    else:
        first, last = ends or ENDS[name]
        betas = (
            torch.linspace(first, last, LEVELS, dtype=torch.float32)
            if name == "linear"
            else torch.linspace(first**0.5, last**0.5, LEVELS, dtype=torch.float32) ** 2
        )
    if zero_terminal_snr:
        betas = _rescaled(betas)
    square = (1 - betas).cumprod(0)
    if zero_terminal_snr and least:
        square[-1] = least
    return square.double().sqrt().numpy()


def rescale_to_zero_terminal_snr(alpha: np.ndarray) -> np.ndarray:
    """Shift and stretch alpha "n": last value 0, first unchanged (Lin et al. 2024, alg. 1)."""
    return (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])


def _rescaled(betas: Tensor) -> Tensor:
    """The same, from betas to betas: each step rounds, so their order counts."""
    alpha = (1 - betas).cumprod(0).sqrt()
    first, last = alpha[0].clone(), alpha[-1].clone()
    square = ((alpha - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([square[:1], square[1:] / square[:-1]])


def _cosine() -> np.ndarray:
    """Nichol & Dhariwal 2021, eq. 17, capped at 0.999."""
    place = np.arange(LEVELS + 1) / LEVELS
    alpha_bar = np.cos((place + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


@cache
def angle_table(
    name: str,
    betas: tuple[float, ...],
    zero_terminal_snr: bool,
    least: float | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Angle and its slope per level at levels 0..N "n"; level 0 is the clean end. float64 on a CPU,
    float32 elsewhere, as not every device has more."""
    from scipy.interpolate import PchipInterpolator  # slow to import, needed for tables alone

    if least is None:
        alpha = signal(name, betas, zero_terminal_snr)
    else:
        alpha = published_signal(name, betas, zero_terminal_snr, least)
    angles = np.concatenate([[0.0], np.arctan2(np.sqrt(1 - alpha**2), alpha)])
    slopes = PchipInterpolator(np.arange(LEVELS + 1), angles).derivative()(np.arange(LEVELS + 1))
    kind = np.float64 if device.type == "cpu" else np.float32
    made = [torch.from_numpy(one.astype(kind)).to(device) for one in (angles, slopes)]
    return made[0], made[1]


def joined(between: str, u: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The angle a share u of the way from one level's to the next, and its slope per level, where
    sigma / alpha runs on a "line", or so its logarithm ("power"; not from clean data on)."""
    start, end = left.tan(), right.tan()
    ratio, slope = torch.lerp(start, end, u), end - start
    if between == "power":
        rate = (end / start).log()
        power, noisy = start * (rate * u).exp(), left > 0
        ratio, slope = torch.where(noisy, power, ratio), torch.where(noisy, rate * power, slope)
    return ratio.atan(), slope / (1 + ratio**2)


def spaced_levels(
    steps: int, spacing: str, offset: int, snap: Callable[[Tensor], Tensor]
) -> Tensor:
    """The visits of a spacing (`Schedule.times`) that names levels, counted from 1, float64.

    snap: to levels that exist. Raises UserError for what the levels cannot hold.
    """
    if spacing == "trailing":
        # numpy's arange, as in diffusers: where a level ends in .5, rounding decides
        return snap(torch.from_numpy(np.arange(LEVELS, 0, -LEVELS / steps)[:steps]))
    if spacing == "leading":
        return 1 + _leading(steps, offset)
    if spacing == "leading_less":
        if steps == LEVELS:
            raise UserError(f"spacing 'leading_less' visits at most {LEVELS - 1} levels, not all.")
        return 1 + _leading(steps + 1, offset)[1:]
    if spacing == "respaced":
        strides = np.full(steps - 1, (LEVELS - 1) / max(steps - 1, 1))
        return 1 + torch.from_numpy(np.cumsum([0.0, *strides]).round()).flip(0)
    if spacing == "lcm":
        return _distilled(steps)
    assert spacing == "linspace", f"no spacing {spacing}"
    return 1 + snap(torch.linspace(LEVELS - 1, 0, steps, dtype=torch.float64))


def _leading(steps: int, offset: int) -> Tensor:
    """Levels "steps", float64, from the noisiest down to `offset`."""
    levels = offset + torch.arange(steps, dtype=torch.float64).flip(0) * (LEVELS // steps)
    highest = int(levels[0])
    if offset < 0 or highest >= LEVELS:
        raise UserError(
            f"diffusion.steps_offset: with {offset}, {steps} leading steps visit levels {offset} to"
            f" {highest}, but there are 0 to {LEVELS - 1}. Choose an offset from 0 to"
            f" {LEVELS - 1 - highest + offset}, or another number of steps."
        )
    return levels


def _distilled(steps: int) -> Tensor:
    """The levels, counted from 1, that a latent consistency model visits, float64."""
    if steps > DISTILLED:
        raise UserError(
            f"diffusion.spacing: 'lcm' has {DISTILLED} levels, too few for {steps} steps. Take at"
            f" most {DISTILLED}, or another spacing."
        )
    place = torch.arange(steps, dtype=torch.float64) * DISTILLED / steps
    return (DISTILLED - place.floor()) * (LEVELS // DISTILLED)
