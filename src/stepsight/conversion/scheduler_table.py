"""What the schedulers of diffusers are told: the keys of each class with its own defaults.

A key is one of four: `scheduler.USED` ones become settings; of those in `IDLE` any value will do,
as nothing reads it; those of `ONLY` have to have that value; and all others have to have the
default of their class, because nothing here does anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Keys = Mapping[str, Any]

_LEVELS: Keys = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_CLIP: Keys = {"clip_sample_range": 1.0}
_THRESHOLD: Keys = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_ZERO: Keys = {"rescale_betas_zero_snr": False}
_SIGMAS: Keys = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_SOLVER: Keys = {
    **_LEVELS, **_SIGMAS, **_THRESHOLD, **_ZERO, "timestep_spacing": "linspace",
    "solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero",
    "use_flow_sigmas": False, "flow_shift": 1.0,
    "use_dynamic_shifting": False, "time_shift_type": "exponential",
}  # fmt: skip

CLASSES: dict[str, Keys] = {
    "DDIMScheduler": {
        **_LEVELS, **_CLIP, **_THRESHOLD, **_ZERO,
        "timestep_spacing": "leading", "clip_sample": True, "set_alpha_to_one": True,
    },
    "DDPMScheduler": {
        **_LEVELS, **_CLIP, **_THRESHOLD, **_ZERO,
        "timestep_spacing": "leading", "clip_sample": True, "variance_type": "fixed_small",
    },
    "PNDMScheduler": {
        **_LEVELS,
        "timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False,
    },
    "LCMScheduler": {
        **_LEVELS, **_CLIP, **_THRESHOLD, **_ZERO,
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": True,
        "original_inference_steps": 50, "timestep_scaling": 10.0,
    },
    "EulerDiscreteScheduler": {
        **_LEVELS, **_SIGMAS, **_ZERO,
        "timestep_spacing": "linspace", "final_sigmas_type": "zero", "sigma_min": None,
        "sigma_max": None, "interpolation_type": "linear", "timestep_type": "discrete",
    },
    "EulerAncestralDiscreteScheduler": {**_LEVELS, **_ZERO, "timestep_spacing": "linspace"},
    "HeunDiscreteScheduler": {
        **_LEVELS, **_SIGMAS, **_CLIP, "beta_start": 0.00085, "beta_end": 0.012,
        "timestep_spacing": "linspace", "clip_sample": False,
    },
    "DPMSolverMultistepScheduler": {
        **_SOLVER,
        "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False,
        "use_lu_lambdas": False, "lambda_min_clipped": -float("inf"), "variance_type": None,
    },
    "UniPCMultistepScheduler": {
        **_SOLVER,
        "solver_type": "bh2", "predict_x0": True, "disable_corrector": [], "solver_p": None,
        "sigma_min": None, "sigma_max": None, "shift_terminal": None,
    },
    "FlowMatchEulerDiscreteScheduler": {
        **_SIGMAS,
        "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False,
        "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
        "max_image_seq_len": 4096, "time_shift_type": "exponential", "invert_sigmas": False,
        "shift_terminal": None, "stochastic_sampling": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Idle:
    """Why a key says nothing, and to which classes (none named: to all that have it)."""

    reason: str
    classes: tuple[str, ...] = ()


_NOT_CLIPPED = Idle("clip_sample is false")
_NO_THRESHOLD = Idle("thresholding is false")
_NOT_DYNAMIC = Idle("use_dynamic_shifting is false")
_DISTILLED = Idle("its visits follow from the distillation's", ("LCMScheduler",))
IDLE: dict[str, Idle] = {
    "_class_name": Idle("is what chooses the row"),
    "_diffusers_version": Idle("says who wrote the file"),
    "clip_sample_range": _NOT_CLIPPED,
    "dynamic_thresholding_ratio": _NO_THRESHOLD,
    "sample_max_value": _NO_THRESHOLD,
    "base_shift": _NOT_DYNAMIC,
    "max_shift": _NOT_DYNAMIC,
    "base_image_seq_len": _NOT_DYNAMIC,
    "max_image_seq_len": _NOT_DYNAMIC,
    "time_shift_type": _NOT_DYNAMIC,
    "flow_shift": Idle("use_flow_sigmas is false"),
    "euler_at_final": Idle("a last step to sigma 0 is Euler's"),
    "lower_order_final": Idle(
        "a last step to sigma 0 is of first order", ("DPMSolverMultistepScheduler",)
    ),
    "timestep_spacing": _DISTILLED,
    "steps_offset": _DISTILLED,
    "set_alpha_to_one": _DISTILLED,
    "skip_prk_steps": Idle("is left from a PNDMScheduler, and DDIM has no such steps",
                           ("DDIMScheduler",)),
}  # fmt: skip
# Latents are never clipped, whatever the class does with pixels.
ONLY: Keys = {"clip_sample": False, "skip_prk_steps": True}
