"""scheduler_config.json of every class: which levels are visited, and what is exported again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from conformance.rows import Differences, row
from stepsight.conversion.scheduler import diffusion_settings, scheduler_config
from stepsight.conversion.scheduler_table import CLASSES
from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

COUNTS = (1, 3, 4, 7, 10, 50)
File = dict[str, Any]
SAID = {"clip_sample": False, "skip_prk_steps": True}


def peer(file: File) -> Any:
    keys = {key: value for key, value in file.items() if not key.startswith("_")}
    return getattr(diffusers, file["_class_name"])(**keys)


def told(settings: DiffusionSettings, calls: int) -> np.ndarray:
    """What the network is told in every call, as the class counts its calls."""
    diffusion = Diffusion(settings)
    visits = diffusion.schedule.condition(diffusion.times(calls)[:-1])
    if settings.sampler == "heun":
        visits = torch.cat([visits[:1], visits[1:].repeat_interleave(2)])
    return visits.numpy()


def files() -> Iterator[File]:
    for name, keys in CLASSES.items():
        base = {"_class_name": name, **{key: SAID[key] for key in SAID if key in keys}}
        yield base
        spacings = ("leading",) if name == "PNDMScheduler" else ("leading", "trailing", "linspace")
        for spacing in spacings:  # a PNDMScheduler is leading, or refused
            if "timestep_spacing" in keys:
                yield {**base, "timestep_spacing": spacing, "steps_offset": 1}
        if "use_karras_sigmas" in keys and "timestep_spacing" in keys:
            yield {**base, "use_karras_sigmas": True}


def worst(settings: DiffusionSettings, file: File) -> float:
    """In levels, over all numbers of steps."""
    scheduler, found = peer(file), 0.0
    for steps in COUNTS:
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.numpy()
        ours = told(settings, len(theirs))
        assert ours.shape == theirs.shape
        found = max(found, float(np.abs(ours - theirs).max()))
    return found


@row("importer", "scheduler files", oracle="diffusers 0.42", bar=1e-3)
def levels() -> Differences:
    """The number that the network is told in every call of 1 to 50 steps, in levels of 1000: for
    every class with its defaults, in every spacing and on Karras' levels."""
    return over_files(lambda file: file)


@row("exporter", "scheduler files", oracle="diffusers 0.42", bar=1e-3)
def again() -> Differences:
    """The same beside the class with the file that is exported again, which imports as before."""

    def exported(file: File) -> File:
        settings = diffusion_settings(file)
        written = json.loads(json.dumps(scheduler_config(settings)))
        assert diffusion_settings(written) == settings
        return written

    return over_files(exported)


def over_files(beside: Callable[[File], File]) -> Differences:
    found: dict[str, float] = {}
    for file in files():
        name = file["_class_name"]
        difference = worst(diffusion_settings(file), beside(file))
        found[name] = max(found.get(name, 0.0), difference)
    return found
