"""Settings of the diffusion process (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DiffusionSettings:
    """Schedule, parametrisation, how noise levels are drawn in training, and how errors weigh."""

    schedule: Literal["rectified_flow", "linear", "scaled_linear", "cosine"] = "rectified_flow"
    zero_terminal_snr: bool = False  # rescale a discrete schedule so that t = 1 is pure noise
    prediction: Literal["x", "eps", "v"] = "x"
    density: Literal["uniform", "logit_normal"] = "uniform"  # of u, before the shift
    density_mean: float = 0.0  # logit_normal only
    density_std: float = 1.0
    shift: float = 4.0  # t = shift u / (1 + (shift - 1) u): above 1 moves towards noise
    objective: Literal["denoising", "end_to_end"] = "denoising"  # end_to_end: see docs/recipes.md
    variance: Literal["ignored", "trained"] = "ignored"  # learned variance, where the model has one
    weighting: Literal["uniform", "min_snr"] = "uniform"
    min_snr_gamma: float = 5.0
    multires_noise: float = 0.0  # strength of coarse noise added to the white noise, 0 = off
    multires_annealed: bool = True  # scale that strength by t (full at pure noise)
    sampler: Literal["ddim", "ancestral", "euler", "heun", "dpmpp_2m"] = "ddim"
    spacing: Literal["trailing", "leading", "linspace", "log_snr"] = "trailing"
    steps_offset: int = 1  # leading only: level of the last visit
    final: Literal["clean", "first_level"] = "clean"  # where sampling ends: t = 0, or level 0
    sampling_shift: float = 8.0  # the same map on the sampler's times; 1 leaves them as spaced
    eta: float = 0.0  # stochasticity of ddim
