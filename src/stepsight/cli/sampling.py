"""Flags that say how to sample: one value, or several separated by commas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepsight.cli.entry import given_by
from stepsight.diffusion.config import DiffusionSettings, resampled
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline


def numbers(flag: str, text: str | None) -> list[int]:
    """`1,2,4` as a list; [] when not given. Raises UserError."""
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{flag} {text}: give a positive number, or several such as 1,2,4.")
    return sorted({int(part) for part in parts})


def fractions(flag: str, text: str | None) -> list[float]:
    """`0,0.5,1` as a list; [] when not given. Raises UserError."""
    try:
        values = sorted({float(part) for part in text.split(",")}) if text else []
    except ValueError:
        values = [math.nan]
    if not all(0 <= value < math.inf for value in values):
        raise UserError(f"{flag} {text}: give a number from 0 up, or several such as 0,1.")
    return values


def times(text: str | None) -> tuple[float, ...]:
    """`1.0,0.6,0.2` as numbers; () when not given. Raises UserError."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"--times {text}: give falling times such as 1.0,0.6,0.2.") from error


def names(text: str | None) -> list[str]:
    """`ddim,heun` as a list, each name once; [] when not given."""
    return list(dict.fromkeys(part.strip() for part in text.split(","))) if text else []


def check_sampling(
    settings: DiffusionSettings, values: Mapping[str, Sequence[Any]], visits: Sequence[float] = ()
) -> None:
    """Raise UserError, naming the flag, for a value that no sampler of `settings` can have.

    values: of `--sampler`, `--spacing` and the like, by the flag's name; visits: of --times.
    """
    for name, given in values.items():
        for value in given:
            with given_by(f"--{name} {value}"):
                resampled(settings, times=visits if name == "spacing" else (), **{name: value})
    if visits:
        with given_by("--times"):
            resampled(settings, times=visits)


def check_setting(
    pipeline: DensePipeline,
    task: str,
    checkpoint: str,
    nfe: int | None,
    members: int | None,
    temperature: float | None,
    views: str | None,
) -> None:
    """Raise UserError for calls and members that cannot be spent, naming the flag that asks for
    them, or the checkpoint whose default they are (None); and for guidance that cannot be."""
    from stepsight.pipeline.guidance import check_guidance

    setting = pipeline.setting(task, nfe, members, temperature, views)
    sampled = pipeline.with_setting(setting)
    sampled = sampled if views is None else sampled.sampling(views=views)
    check_guidance(pipeline.net, pipeline.task(task), sampled.diffusion.settings.guidance)
    default = f"nfe {setting.nfe}, the default of {checkpoint}"
    with given_by(default if nfe is None else f"--nfe {nfe}"):
        sampled.diffusion.check_calls(setting.nfe)
    flags = {"members": members, "temperature": temperature, "views": views}
    given = [f"--{name} {value}" for name, value in flags.items() if value is not None]
    with given_by(" ".join(given) or f"the defaults of {checkpoint}"):
        sampled.check_setting(setting.members, setting.nfe)
