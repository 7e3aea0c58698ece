"""Marigold (Ke et al. 2024), its end-to-end fine-tuned kin (Garcia et al. 2025), and Stable
Diffusion, in diffusers' layout.

Marigold is a U-Net that denoises the latent of a depth or normal map next to that of the image. Its
published code is diffusers' own: the longer side is brought to 768 pixels, sides are padded to
multiples of 8, answers are clipped, members aligned at 1,024 pixels. E2E-FT answers zeros in one
step; its code pads nothing, and nothing in its folders says so.

Stable Diffusion becomes a generator of one class, with its weights as they are. Trained for other
tasks (`--init-from`), its input convolution is widened for condition images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.source import Source
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import ImageFolderSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import DepthSettings, ImageSettings, NormalsSettings, TaskSettings

DEPTH, NORMALS = DepthSettings(space="linear"), NormalsSettings(axes="right_up_back")
RESOLUTION = 768  # of Marigold's README
MULTIRES = 0.9  # strength of Marigold's annealed multi-resolution noise in training
GENERATOR_STEPS = 50  # of diffusers' StableDiffusionPipeline
# What diffusers' pipelines do with a picture and with members. Depth is in [0, 1].
DIFFUSERS = Profile(
    "marigold",
    fit="longest",
    resolution=RESOLUTION,
    pad=8,
    resize_output="bilinear",
    members=1,
    tasks={
        "depth": {"clip": True, "merge_by": "published", "low": 0.0, "high": 1.0},
        "normals": {"clip": True, "merge_by": "closest"},
    },
)
KEYS = ("default_denoising_steps", "default_processing_resolution", "prediction_type")


def depth(source: Source, wishes: Wishes) -> Converted:
    """Marigold's depth: v1.0, v1.1 and LCM."""
    source.check(8, *KEYS, "scale_invariant", "shift_invariant")
    free = [source.index.get(key, True) for key in ("scale_invariant", "shift_invariant")]
    if any(free) and not all(free):
        raise UserError(
            f"{source.path}: scale_invariant and shift_invariant differ; depth is supported up to "
            f"both, or to neither."
        )
    if all(free):
        return _marigold(source, DEPTH)
    source.assumed.append("metric depth whose metres no file says: values are in [0, 1]")
    return _marigold(source, replace(DEPTH, range="metric"), {"merge_by": "unaligned_median"})


def normals(source: Source, wishes: Wishes) -> Converted:
    """Marigold's normals of the full range."""
    source.check(8, *KEYS, "use_full_z_range")
    if source.index.get("use_full_z_range") is False:
        raise UserError(
            f"{source.path}: its normals fold z into [0, 1] (use_full_z_range false); only models "
            f"of the full range are supported."
        )
    return _marigold(source, NORMALS)


def _marigold(
    source: Source, task: TaskSettings, settings: Mapping[str, Any] | None = None
) -> Converted:
    means = source.index.get("prediction_type") or task.name  # older folders do not say
    if means != task.name:
        raise UserError(f"{source.path}: predicts {means}; {task.name} is supported.")
    side = source.entry("default_processing_resolution", RESOLUTION, least=0)
    steps = source.entry("default_denoising_steps", 10)
    how = {task.name: {**DIFFUSERS.tasks[task.name], **(settings or {})}}
    profile = replace(DIFFUSERS, resolution=side, nfe=steps, tasks=how)
    diffusion = trained_like(source.scheduler())
    return source.run([task], diffusion, profile, side=side, memory="channels_last")


def e2e_depth(source: Source, wishes: Wishes) -> Converted:
    """E2E-FT's depth."""
    return _end_to_end(source, DEPTH, {"clip": True, "stretch": True, "low": 0.0, "high": 1.0})


def e2e_normals(source: Source, wishes: Wishes) -> Converted:
    """E2E-FT's normals."""
    source.assumed.append("normals point right, up and back, as Marigold's do: in no file")
    return _end_to_end(source, NORMALS, {})


def _end_to_end(source: Source, task: TaskSettings, settings: dict[str, object]) -> Converted:
    """Zeros as noise, one step from the noisiest level, whatever the scheduler's file says."""
    source.check(8, *KEYS)
    profile = Profile(
        source.family,
        fit="longest_scaled",
        resolution=RESOLUTION,
        resize_input="rounded",
        nfe=1,
        members=1,
        tasks={task.name: settings} if settings else {},
    )
    source.assumed.append("zeros as noise, one trailing step: fixed in E2E-FT's code, in no file")
    diffusion = replace(source.scheduler(), spacing="trailing", objective="end_to_end")
    return source.run([task], diffusion, profile, side=RESOLUTION, members=1)


def generator(source: Source, wishes: Wishes) -> Converted:
    """Stable Diffusion under the empty prompt."""
    source.check(4, "requires_safety_checker")
    profile = replace(Profile(), nfe=GENERATOR_STEPS)
    task, data = ImageSettings(classes=1), ImageFolderSettings()
    converted = source.run([task], source.scheduler(), profile, data=data)
    converted.profile = None  # it is asked for pictures, and sees none
    converted.notes = [
        *converted.notes,
        "one class, under the empty prompt; to fine-tune, name this run with --init-from",
    ]
    return converted


def trained_like(diffusion: DiffusionSettings) -> DiffusionSettings:
    """With the noise that Marigold is trained with, for those who train on."""
    return replace(diffusion, multires_noise=MULTIRES, multires_annealed=True)
