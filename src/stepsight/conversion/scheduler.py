"""Diffusers' scheduler_config.json to and from our diffusion settings.

Such a file describes the noise a network was trained with, and how its sampler walks: the settings
follow the class that it names (`diffusion.config.CONVENTIONS`). A key that is missing has the value
of that class, but for `clip_sample`, which latents never want. A key that asks for what nothing
here does, or that nobody knows, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stepsight.conversion.folders import read_json
from stepsight.conversion.scheduler_table import CLASSES, IDLE, ONLY, Keys
from stepsight.diffusion.config import CONVENTIONS, DiffusionSettings
from stepsight.errors import UserError
from stepsight.noise_levels import ENDS

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}
SPACINGS = ("leading", "trailing", "linspace")
VARIANCES = {
    "fixed_small": "ancestral",
    "fixed_large": "ancestral_large",
    "learned_range": "ancestral_learned",
}
ALIKE = ("ddim", "euler")  # what our own settings export as DDIM
FLOW = "FlowMatchEulerDiscreteScheduler"
LCM = "LCMScheduler"
# What becomes a setting, where the class has it.
USED = (
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "use_karras_sigmas",
    "shift",
)


def read_settings(file: Path) -> DiffusionSettings:
    """The settings a scheduler_config.json stands for. Raises UserError naming file and key."""
    return read_scheduler(file)[0]


def read_scheduler(file: Path) -> tuple[DiffusionSettings, list[str]]:
    """The settings of a scheduler_config.json, and what was assumed, in sentences.

    Raises UserError naming file and key.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file. Name a scheduler_config.json.")
    config = read_json(file)
    return diffusion_settings(config, str(file)), assumptions(config)


def diffusion_settings(
    config: Mapping[str, Any], where: str = "scheduler_config.json"
) -> DiffusionSettings:
    """The settings of a scheduler's configuration, which follow its class in every step.

    Raises UserError, naming `where` and the key, for what has no counterpart.
    """
    name = class_of(config, where)
    defaults = CLASSES[name]
    for key in [*config, *(key for key in ONLY if key in defaults)]:
        _check_key(key, config, name, where)
    file = {**defaults, **{key: config[key] for key in config if not _idle(key, name)}}
    settings = _flow(file, where) if name == FLOW else _variance_preserving(file, name, where)
    return DiffusionSettings(**settings, shift=1.0, convention=name)


def class_of(config: Mapping[str, Any], where: str = "scheduler_config.json") -> str:
    """The scheduler that a configuration names. Raises UserError for an unknown one."""
    name = config.get("_class_name", "DDIMScheduler")
    if name not in CLASSES:
        raise UserError(
            f"{where}: _class_name is {name!r}, which is not supported. Supported are "
            f"{', '.join(CLASSES)}."
        )
    return name


def assumptions(config: Mapping[str, Any]) -> list[str]:
    """What a configuration leaves to its class, in sentences."""
    name = class_of(config)
    assumed = [] if "_class_name" in config else ["_class_name is missing: DDIMScheduler"]
    defaults = CLASSES[name]
    for key in USED:
        if _used(key, name) and key not in config:
            assumed.append(f"{key} is missing: {defaults[key]}, {name}'s default")
    if defaults.get("clip_sample") and "clip_sample" not in config:
        assumed.append(f"clip_sample is missing: False, as for all latents; {name}'s default: True")
    return assumed


def scheduler_config(settings: DiffusionSettings) -> dict[str, Any]:
    """The inverse of `diffusion_settings`: the configuration of the class that the settings follow,
    for our own convention that of a DDIMScheduler.

    Raises UserError for settings that no such scheduler has.
    """
    name = settings.convention if settings.convention in CLASSES else "DDIMScheduler"
    file = {key: ONLY.get(key, value) for key, value in CLASSES[name].items()}
    if name == FLOW:
        return {"_class_name": name, **file, "shift": settings.sampling_shift}
    names = [theirs for theirs, ours in SCHEDULES.items() if ours == settings.schedule]
    spacing, own = settings.spacing, settings.convention != name
    if not own:
        spacing = {"lcm": "leading", "karras": "linspace"}.get(spacing, spacing)
    # a step of Euler's is one of DDIM's, and one step is one of any sampler
    other = own and settings.sampler not in ALIKE and settings.objective == "denoising"
    if not names or spacing not in SPACINGS or settings.sampling_shift != 1 or other:
        raise UserError(
            f"diffusion: schedule {settings.schedule}, spacing {settings.spacing}, sampling_shift "
            f"{settings.sampling_shift}, sampler {settings.sampler} have no counterpart in "
            f"diffusers' {name}; it knows linear, scaled_linear and cosine, {', '.join(SPACINGS)}, "
            f"no shift, and of our samplers ddim and euler."
        )
    start, end = settings.betas or ENDS[settings.schedule] or ENDS["linear"]
    variances = {ours: theirs for theirs, ours in VARIANCES.items()}
    said = {
        "beta_schedule": names[0],
        "beta_start": start,
        "beta_end": end,
        "prediction_type": {ours: key for key, ours in PREDICTIONS.items()}[settings.prediction],
        "rescale_betas_zero_snr": settings.zero_terminal_snr,
        "timestep_spacing": spacing,
        "steps_offset": settings.steps_offset,
        "set_alpha_to_one": settings.final == "clean",
        "use_karras_sigmas": settings.spacing == "karras",
        "variance_type": variances.get(settings.sampler),
    }
    return {"_class_name": name, **file, **{key: said[key] for key in said if key in file}}


def _flow(file: Keys, where: str) -> dict[str, Any]:
    return {
        "schedule": "rectified_flow",
        "prediction": "v",
        "sampler": "euler",
        "spacing": "linspace",
        "sampling_shift": _number(file, "shift", where),
    }


def _variance_preserving(file: Keys, name: str, where: str) -> dict[str, Any]:
    schedule = SCHEDULES[_choice(file, "beta_schedule", SCHEDULES, where)]
    betas = _number(file, "beta_start", where), _number(file, "beta_end", where)
    if schedule == "cosine" or betas == ENDS[schedule]:
        betas = ()
    elif not 0 < min(betas) <= max(betas) < 1:
        key = "beta_start" if not 0 < betas[0] < 1 else "beta_end"
        raise UserError(f"{where}: {key} is {file[key]!r}; betas lie between 0 and 1.")
    spacing = _choice(file, "timestep_spacing", SPACINGS, where)
    sampler = CONVENTIONS[name].samplers[0]
    if name == "DDPMScheduler":
        sampler = VARIANCES[_choice(file, "variance_type", VARIANCES, where)]
        if sampler != "ancestral" and spacing != "linspace":  # it draws in its last step as well
            raise UserError(
                f"{where}: timestep_spacing is {spacing!r} and variance_type "
                f"{file['variance_type']!r}; that variance is supported with 'linspace'."
            )
    return {
        "schedule": schedule,
        "zero_terminal_snr": _flag(file, "rescale_betas_zero_snr", where),
        "betas": betas,
        "prediction": PREDICTIONS[_choice(file, "prediction_type", PREDICTIONS, where)],
        "sampler": sampler,
        "spacing": _spacing(file, name, spacing, where),
        "steps_offset": int(_number(file, "steps_offset", where, whole=True)),
        "final": "clean" if _flag(file, "set_alpha_to_one", where, True) else "first_level",
        "sampling_shift": 1.0,
    }


def _spacing(file: Keys, name: str, spacing: str, where: str) -> str:
    """Our spacing. Raises UserError for pairs of keys that are not supported."""
    if name == LCM:
        return "lcm"
    if name == "PNDMScheduler" and (spacing, file["prediction_type"]) != ("leading", "epsilon"):
        key = "prediction_type" if spacing == "leading" else "timestep_spacing"
        raise UserError(
            f"{where}: {key} is {file[key]!r}; of a PNDMScheduler only 'epsilon' and 'leading' are "
            "supported."
        )
    if not _flag(file, "use_karras_sigmas", where):
        return spacing
    if CONVENTIONS[name].on == "sigma" and spacing != "linspace":
        raise UserError(
            f"{where}: timestep_spacing is {spacing!r} and use_karras_sigmas true; the Karras "
            f"levels of a {name} are supported with 'linspace'."
        )
    if file["beta_schedule"] == "squaredcos_cap_v2":
        raise UserError(
            f"{where}: use_karras_sigmas is true; it is not supported with the cosine's betas."
        )
    return "karras"


def _used(key: str, name: str) -> bool:
    """Whether a key becomes a setting; a flow has its shift alone."""
    used = key == "shift" if name == FLOW else key in USED
    used |= (key, name) == ("variance_type", "DDPMScheduler")
    return used and key in CLASSES[name] and not _idle(key, name)


def _idle(key: str, name: str) -> bool:
    row = IDLE.get(key)
    if row is None:
        return False
    return name in row.classes if row.classes else key in CLASSES[name] or key.startswith("_")


def _check_key(key: str, config: Mapping[str, Any], name: str, where: str) -> None:
    """Raise UserError for a key that is unknown, or that asks for what is not done."""
    if _idle(key, name) or _used(key, name):
        return
    if key not in CLASSES[name]:
        raise UserError(f"{where}: {key} is no key of a {name} that is known here.")
    only = ONLY.get(key, CLASSES[name][key])
    # latents are never clipped: a missing key means that too
    value = config.get(key, only if key == "clip_sample" else CLASSES[name][key])
    if value != only:
        raise UserError(f"{where}: {key} is {value!r}; only {only!r} is supported.")


def _choice(file: Keys, key: str, choices: Collection[str], where: str) -> str:
    if file[key] not in choices:
        raise UserError(f"{where}: {key} is {file[key]!r}; choose from {', '.join(choices)}.")
    return file[key]


def _flag(file: Keys, key: str, where: str, default: bool = False) -> bool:
    """A key that not every class has."""
    if not isinstance(value := file.get(key, default), bool):
        raise UserError(f"{where}: {key} is {value!r}; choose from true, false.")
    return value


def _number(file: Keys, key: str, where: str, whole: bool = False) -> float:
    value = file[key]
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise UserError(f"{where}: {key} is {value!r}; give a {'whole ' * whole}number.")
    return float(value)
