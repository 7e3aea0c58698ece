"""Marigold's intrinsic image decompositions (Ke et al. 2025), in diffusers' layout.

A Marigold whose U-Net denoises the latents of several pictures at once, four channels each, in the
order of `target_names` in model_index.json: albedo and material ("appearance"), or albedo, shading
and residual ("lighting"). Each becomes a task, with its place in the one target. The published code
is diffusers' `MarigoldIntrinsicsPipeline`: pictures are brought to the network as for depth,
answers are clipped, and of members each value's median is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args, get_type_hints

from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.marigold import DIFFUSERS, KEYS, RESOLUTION, trained_like
from stepsight.conversion.families.source import Source
from stepsight.conversion.folders import INDEX
from stepsight.conversion.write import Converted
from stepsight.errors import UserError, suggest
from stepsight.tasks.config import UNSCORED, IntrinsicSettings, TaskSettings

LATENTS = 4  # channels of a picture
STEPS = 4  # of Marigold's README
SPACES = get_args(get_type_hints(IntrinsicSettings)["space"])


def intrinsics(source: Source, wishes: Wishes) -> Converted:
    """Any of them."""
    if source.index.get("prediction_type") not in ("intrinsics", None):
        raise UserError(f"{source.path}: predicts {source.index['prediction_type']}.")
    properties, where = source.index.get("target_properties"), f"{source.path / INDEX}: target"
    if not isinstance(properties, Mapping) or not properties.get("target_names"):
        raise UserError(f"{where}_properties must be an object with target_names.")
    names = properties["target_names"]
    tasks = [_task(name, properties, place, where) for place, name in enumerate(names)]
    source.check(LATENTS * (1 + len(tasks)), *KEYS, "target_properties")
    channels = {name: properties[name].get("sub_target_names") or () for name in names}
    explained = {"target_names", *names, *(part for parts in channels.values() for part in parts)}
    for name in properties.keys() - explained:
        raise UserError(f"{where} {name} is not among target_names.")
    side = source.entry("default_processing_resolution", RESOLUTION, least=0)
    steps = source.entry("default_denoising_steps", STEPS)
    profile = replace(DIFFUSERS, resolution=side, nfe=steps, tasks={})
    converted = source.run(
        tasks, trained_like(source.scheduler()), profile, side=side, memory="channels_last"
    )
    converted.notes = [*converted.notes, *_told(channels)]
    return converted


def _task(name: str, properties: Mapping[str, Any], place: int, where: str) -> TaskSettings:
    """The task of a target. Raises UserError for one of a kind, or with properties, that are not
    known."""
    if name not in UNSCORED:
        raise UserError(f"{where} {name} is unknown.{suggest(name, UNSCORED)}")
    told = dict(properties.get(name) or {})
    space, scale = told.pop("prediction_space", "srgb"), told.pop("up_to_scale", False)
    parts = told.pop("sub_target_names", ()) if space == "stack" else ()
    if space not in SPACES or type(scale) is not bool or told or (parts and len(parts) != 3):
        raise UserError(f"{where} {name} is {properties[name]}, which is not supported.")
    for part in filter(None, parts):  # which matters to pictures of single channels, not drawn here
        if unknown := {*properties.get(part, ())} - {"prediction_space", "up_to_scale"}:
            raise UserError(f"{where} {part}: {', '.join(unknown)} is unknown.")
    return UNSCORED[name](place=place, space=space, up_to_scale=scale)  # type: ignore[call-arg]


def _told(channels: Mapping[str, Any]) -> Iterator[str]:
    """What the channels of stacked targets are."""
    for name, parts in channels.items():
        if parts:
            yield f"{name}: its channels are {', '.join(part or 'nothing' for part in parts)}"
