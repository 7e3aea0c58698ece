"""Diffusers' scheduler_config.json to and from our diffusion settings.

Such a file describes the noise a network was trained with and the levels its sampler visits. Which
solver it names does not matter here: the settings sample by DDIM. A key that is missing has the
value of diffusers' DDIMScheduler, but for `clip_sample`, which latents never want.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stepsight.conversion.folders import read_json
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.schedule import LEVELS

# beta_schedule -> our schedule, and the ends it is tabulated for (None: it has none to choose)
SCHEDULES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "linear": ("linear", (1e-4, 0.02)),
    "scaled_linear": ("scaled_linear", (0.00085, 0.012)),
    "squaredcos_cap_v2": ("cosine", None),
}
PREDICTIONS = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}
SPACINGS = ("leading", "trailing", "linspace")

# What a file may say only in one way: nothing here does the rest.
FIXED: dict[str, Any] = {
    "num_train_timesteps": LEVELS,
    "trained_betas": None,
    "clip_sample": False,
    "thresholding": False,
}


def read_settings(file: Path) -> DiffusionSettings:
    """The settings a scheduler_config.json stands for. Raises UserError naming file and key."""
    if not file.is_file():
        raise UserError(f"{file}: no such file. Name a scheduler_config.json.")
    return diffusion_settings(read_json(file), str(file))


def diffusion_settings(
    config: Mapping[str, Any], where: str = "scheduler_config.json"
) -> DiffusionSettings:
    """The settings of a scheduler's configuration: DDIM (eta 0) on the levels it visits.

    Raises UserError, naming `where` and the key, for a value that has no counterpart.
    """
    for key, only in FIXED.items():
        if config.get(key, only) != only:
            raise UserError(f"{where}: {key} is {config[key]!r}; only {only!r} is supported.")
    prediction = _choice(config, "prediction_type", "epsilon", PREDICTIONS, where)
    return DiffusionSettings(
        schedule=_schedule(config, where),  # type: ignore[arg-type]
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
        prediction=PREDICTIONS[prediction],  # type: ignore[arg-type]
        shift=1.0,
        sampler="ddim",
        spacing=_choice(config, "timestep_spacing", "leading", SPACINGS, where),  # type: ignore[arg-type]
        steps_offset=int(config.get("steps_offset", 0)),
        final="clean" if config.get("set_alpha_to_one", True) else "first_level",
        sampling_shift=1.0,
    )


def scheduler_config(settings: DiffusionSettings) -> dict[str, Any]:
    """The inverse of `diffusion_settings`: the configuration of a DDIMScheduler.

    Raises UserError for settings that no such scheduler has.
    """
    names = [name for name, (ours, _) in SCHEDULES.items() if ours == settings.schedule]
    if not names or settings.spacing not in SPACINGS or settings.sampling_shift != 1:
        raise UserError(
            f"diffusion: schedule {settings.schedule}, spacing {settings.spacing}, sampling_shift "
            f"{settings.sampling_shift} have no counterpart in diffusers' DDIMScheduler; it knows "
            f"linear, scaled_linear and cosine, {', '.join(SPACINGS)}, and no shift."
        )
    start, end = SCHEDULES[names[0]][1] or SCHEDULES["linear"][1]  # type: ignore[misc]
    return {
        "_class_name": "DDIMScheduler",
        **FIXED,
        "beta_schedule": names[0],
        "beta_start": start,
        "beta_end": end,
        "prediction_type": {ours: name for name, ours in PREDICTIONS.items()}[settings.prediction],
        "rescale_betas_zero_snr": settings.zero_terminal_snr,
        "timestep_spacing": settings.spacing,
        "steps_offset": settings.steps_offset,
        "set_alpha_to_one": settings.final == "clean",
    }


def _schedule(config: Mapping[str, Any], where: str) -> str:
    ours, ends = SCHEDULES[_choice(config, "beta_schedule", "linear", SCHEDULES, where)]
    for key, value in zip(("beta_start", "beta_end"), ends or ()):
        if config.get(key, value) != value:
            raise UserError(
                f"{where}: {key} is {config[key]!r}; the schedule {ours} is supported with {value}."
            )
    return ours


def _choice(
    config: Mapping[str, Any], key: str, default: str, choices: Collection[str], where: str
) -> str:
    value = config.get(key, default)
    if value not in choices:
        raise UserError(f"{where}: {key} is {value!r}; choose from {', '.join(choices)}.")
    return value
