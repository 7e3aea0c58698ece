"""The samplers by name. What they cost is in `diffusion.config`, which loads no torch."""

from __future__ import annotations

from stepsight.diffusion.config import CALLS, nfe, spendable, steps_for
from stepsight.diffusion.multistep import dpmpp_2m, unipc
from stepsight.diffusion.ode import euler, heun, midpoint
from stepsight.diffusion.stochastic import ancestral, consistency, ddim
from stepsight.diffusion.walk import Denoise, Sampler, StepNoise

SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ancestral": ancestral,
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
    "consistency": consistency,
}

__all__ = ["CALLS", "SAMPLERS", "Denoise", "Sampler", "StepNoise", "nfe", "spendable", "steps_for"]
