"""The perception models of Ravishankar et al. 2024: `dit_moe_generalist.pt`, and single-task ones.

The generalist is a DiT with experts and an input convolution per task, for depth, amodal completion
and optical flow ("Scaling Properties of Diffusion Models for Perceptual Tasks"). Its names are
DiT's, but for

* `x_embedder.proj.conv_in_{n}.weight`, n from 1: one per convolution, which we stack and flatten,
  with channels in the order image, prompt, noisy target; ours have the noisy target first;
* 1005 label rows: ImageNet's classes, which no input convolution belongs to and which we drop, the
  four rows of the tasks in the order of their convolutions, and the null row.

A single-task model, dense or with experts, has DiT's names throughout, the same order of channels,
and the table of the class-conditional model that it started from: its task is class 0.

What the released script does besides is in no file, and is the profile: pictures are squashed to
512 x 512, to the nearest pixel but for what its readers of data resize before (frames and amodal
pictures bilinearly, visible masks to the nearest pixel); u and v set out from the same noise; five
members are merged by Marigold's rule at 50 pixels and in [-1, 1] (depth), by the median of each
pixel (amodal), by the mean (flow). Its readers mean to scale v by 512/384 but scale one row of the
picture, so that v is in pixels of the original frame, 384 high. Its depth prompt is the truth's
validity, which no new picture has. It never goes back to the picture's own grid: for that we resize
as its pipeline's own call does, which the script leaves out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from stepsight.config import RunConfig
from stepsight.conversion.dit import (
    KERNEL,
    LABELS,
    VAE,
    Trained,
    Wishes,
    expected,
    published_shapes,
    shape_of,
    stacked,
)
from stepsight.conversion.folders import SCHEDULER
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.scheduler import read_scheduler
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import (
    FileSettings,
    FlyingChairsSettings,
    HypersimSettings,
    Pix2GestaltSettings,
)
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import AmodalSettings, DepthSettings, FlowSettings, TaskSettings
from stepsight.training.config import TrainingSettings

FIRST_KERNEL = "x_embedder.proj.conv_in_1.weight"
CLASSES = 1000  # rows of ImageNet, before those of the tasks
CONVOLUTION = re.compile(r"x_embedder\.proj\.conv_in_(\d+)\.(weight|bias)")

# In the order of their rows: depth, amodal completion, and u and v of the flow.
TASKS: dict[str, TaskSettings] = {
    "depth": DepthSettings(space="linear", prompt="valid"),
    "amodal": AmodalSettings(target="rgb", threshold=230),  # a decoded white is not quite 255
    "flow": FlowSettings(components="separate", cost_volume=False, scale=75.0, grid=(384, 512)),
}
# scheduler/scheduler_config.json of Stable Diffusion 2, which the released code samples by.
DIFFUSION = DiffusionSettings(
    schedule="scaled_linear",
    prediction="v",
    shift=1.0,
    sampler="ddim",
    spacing="leading",
    steps_offset=1,
    final="first_level",
    sampling_shift=1.0,
    convention="DDIMScheduler",
)
EVALUATION = EvaluationSettings(nfe=50, members=4, temperature=1.0, views="none")
BESIDE = "stable-diffusion-2"  # the folder whose VAE and scheduler the released script takes
PROFILE = Profile(
    "scaling-perception",
    fit="square",
    resize_input="nearest_exact",
    resize_task={"amodal": "bilinear", "flow": "bilinear"},
    resize_mask="nearest",
    noise="shared",
    nfe=50,
    members=5,
)
UNIT = {"low": 0.0, "high": 1.0}
MERGED = {
    "depth": {"merge_by": "published", "merge_resolution": 50, "merge_range": "target", **UNIT},
    "amodal": {"merge_by": "median"},
    "flow": {"merge_by": "mean"},
}


def import_generalist(weights: Weights, wishes: Wishes) -> Converted:
    """The generalist as a run. Raises UserError for what is not in the published layout."""
    trained, wishes = Trained.of(weights, FIRST_KERNEL), _beside(wishes, weights)
    codec = wishes.codec()
    size = trained.sized(wishes, codec)
    diffusion = wishes.diffusion(DIFFUSION)
    config = RunConfig(
        tasks=dict(TASKS),
        data={
            "hypersim": HypersimSettings(root="hypersim", size=size),
            "pix2gestalt": Pix2GestaltSettings(root="pix2gestalt", size=size),
            "flyingchairs": FlyingChairsSettings(root="flyingchairs", size=size),
        },
        model=trained.model(input="per_task"),
        codec=replace(wishes.codec_settings, memory="contiguous"),
        diffusion=diffusion,
        training=TrainingSettings(precision="float32"),  # as published
        evaluation=EVALUATION,
    )
    compare(weights, _published(expected(config, codec), trained))
    notes = [
        *weights.notes,
        trained.note,
        f"the {CLASSES} ImageNet rows were dropped: no input convolution belongs to them",
        *wishes.notes(diffusion),
    ]
    ours, sizes = _ours(weights.tensors), dict.fromkeys(TASKS, size)
    return _as_published(Converted(config, ours, sizes, codec, notes=notes), wishes)


def import_single(weights: Weights, wishes: Wishes) -> Converted:
    """A single-task model as a run. Raises UserError for what is not in the published layout, and
    where its task is not given, or takes other images than it."""
    trained, wishes = Trained.of(weights, KERNEL), _beside(wishes, weights)
    codec = wishes.codec()
    size, diffusion = trained.sized(wishes, codec), wishes.diffusion(DIFFUSION)
    inputs, rows = weights.tensors[KERNEL].shape[1], shape_of(weights, LABELS, 2)[0]
    task, settings, source = _single_task(weights, wishes.task, inputs // VAE.latents - 1)
    config = RunConfig(
        tasks={task: settings},
        data={source.name: source(root=source.name, size=size)},
        model=trained.model(),
        codec=replace(wishes.codec_settings, memory="contiguous"),
        diffusion=diffusion,
        training=TrainingSettings(precision="float32"),  # as published
        evaluation=EVALUATION,
    )
    shapes = published_shapes(expected(config, codec), trained.side)
    kept = shapes[LABELS][0]
    if rows == CLASSES + 1:  # else it is an export of ours
        shapes[LABELS] = (rows, shapes[LABELS][1])
    compare(weights, shapes)
    ours = stacked(weights.tensors)
    ours |= {KERNEL: _target_first(ours[KERNEL]), LABELS: ours[LABELS][[0, -1]]}
    notes = [
        *weights.notes,
        trained.note,
        f"{task} is label row 0, as in the authors' code; {rows - kept} other classes were dropped",
        *wishes.notes(diffusion),
    ]
    return _as_published(Converted(config, ours, {task: size}, codec, notes=notes), wishes)


def _beside(wishes: Wishes, weights: Weights) -> Wishes:
    """With the VAE and the scheduler that lie beside the file, where none are named."""
    folder = weights.source.parent / BESIDE
    vae, scheduler = folder / "vae", folder / "scheduler" / SCHEDULER
    return replace(
        wishes,
        vae=wishes.vae or (vae if vae.is_dir() else None),
        scheduler=wishes.scheduler or (scheduler if scheduler.is_file() else None),
    )


def _as_published(converted: Converted, wishes: Wishes) -> Converted:
    """With the profile of the released script, and what no file says."""
    (height, width), *_ = converted.sizes.values()
    if height == width:
        merged = {task: MERGED[task] for task in converted.config.tasks}
        converted.profile = replace(PROFILE, resolution=width, tasks=merged)
    converted.assumed = [*_assumed(converted, wishes)]
    return converted


def _assumed(converted: Converted, wishes: Wishes) -> Iterator[str]:
    for what, path in (("VAE", wishes.vae), ("scheduler", wishes.scheduler)):
        if path is not None and BESIDE in path.parts:
            yield f"{what}: {path}, beside the weights"
    if wishes.scheduler is not None:
        yield from read_scheduler(wishes.scheduler)[1]
    if converted.profile is None:
        yield "pictures are seen at --size, resized and merged as stepsight does: it is no square"
    else:
        yield (
            f"pictures squashed to {converted.profile.resolution} x {converted.profile.resolution},"
            f" one noise for all runs, how members are merged: fixed in the authors' code"
        )
    tasks = converted.config.tasks
    if tasks.get("depth") == TASKS["depth"]:
        yield "depth: its prompt is all ones, where the authors' code gives the truth's validity"
    if "flow" in tasks:
        yield "flow: v is in pixels of a frame 384 high, which the authors' code does not rescale"


def _single_task(
    weights: Weights, task: str | None, images: int
) -> tuple[str, TaskSettings, type[FileSettings]]:
    """A task of so many condition images, its settings, and the data it was trained on."""
    known = {
        ("depth", 1): (DepthSettings(space="linear"), HypersimSettings),
        ("depth", 2): (TASKS["depth"], HypersimSettings),
        ("amodal", 2): (TASKS["amodal"], Pix2GestaltSettings),
    }
    fitting = [name for name, count in known if count == images]
    if task is None or (task, images) not in known:
        raise UserError(
            f"{weights.source} is a single-task model of {images} condition image(s), whose file "
            f"does not say its task{'' if task is None else f', which cannot be {task}'}. "
            + (f"Give --task {' or '.join(fitting)}." if fitting else "No task here has as many.")
        )
    return task, *known[task, images]


def _published(ours: Mapping[str, Tensor], trained: Trained) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the file of the backbone `ours`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in published_shapes(ours, trained.side).items():
        if name.startswith("x_embedder.proj."):
            shapes |= _convolutions(name, shape, trained.patch)
        elif name == LABELS:
            shapes[name] = (CLASSES + shape[0], shape[1])
        else:
            shapes[name] = shape
    return shapes


def _convolutions(name: str, shape: tuple[int, ...], patch: int) -> dict[str, tuple[int, ...]]:
    """Of our stacked "r o (i p p)" or "r o", the published "o i p p" or "o" of each row."""
    rows, *each = shape
    kind = name.rpartition(".")[2]
    if kind == "weight":
        each = [each[0], each[1] // patch**2, patch, patch]
    return {f"x_embedder.proj.conv_in_{row + 1}.{kind}": tuple(each) for row in range(rows)}


def _ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, in float32."""
    ours = stacked(weights)
    convolutions: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name in list(ours):
        if row := CONVOLUTION.fullmatch(name):
            convolutions[row[2]][int(row[1])] = _target_first(ours.pop(name))
    for kind, each in convolutions.items():
        stack = torch.stack([each[number] for number in sorted(each)])
        ours[f"x_embedder.proj.{kind}"] = stack.flatten(2) if kind == "weight" else stack
    ours[LABELS] = ours[LABELS][CLASSES:]
    return ours


def _target_first(value: Tensor) -> Tensor:
    """A kernel "o i p p" with the noisy target's channels moved from the end to the beginning."""
    return value.roll(VAE.latents, dims=1) if value.ndim == 4 else value
