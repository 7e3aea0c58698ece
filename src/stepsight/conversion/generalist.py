"""The perception generalist of Ravishankar et al. 2024, `dit_moe_generalist.pt`.

A DiT with experts and an input convolution per task, for depth, amodal completion and optical flow
("Scaling Properties of Diffusion Models for Perceptual Tasks"). Its names are DiT's, but for

* `blocks.{i}.moe.experts.{e}.fc1.weight`: one per expert, which we stack;
* `x_embedder.proj.conv_in_{n}.weight`, n from 1: one per convolution, which we stack and flatten,
  with channels in the order image, prompt, noisy target; ours have the noisy target first;
* 1005 label rows: ImageNet's classes, which no input convolution belongs to and which we drop, the
  four rows of the tasks in the order of their convolutions, and the null row.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from stepsight.config import RunConfig
from stepsight.conversion.dit import (
    KERNEL,
    LABELS,
    POSITIONS,
    VAE,
    Trained,
    Wishes,
    expected,
    published_shapes,
    shape_of,
)
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import (
    FlyingChairsSettings,
    HypersimSettings,
    Pix2GestaltSettings,
)
from stepsight.diffusion.config import DiffusionSettings
from stepsight.evaluation.config import EvaluationSettings
from stepsight.tasks.config import AmodalSettings, DepthSettings, FlowSettings, TaskSettings
from stepsight.training.config import TrainingSettings

CLASSES = 1000  # rows of ImageNet, before those of the tasks
ACTIVE = 2  # experts per token: no shape says it
GATE = "blocks.0.moe.gate.weight"
CONVOLUTION = re.compile(r"x_embedder\.proj\.conv_in_(\d+)\.(weight|bias)")
EXPERT = re.compile(r"(blocks\.\d+\.moe\.experts)\.(\d+)\.(fc[12]\.(?:weight|bias))")

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
)


def import_generalist(weights: Weights, wishes: Wishes) -> Converted:
    """The generalist as a run. Raises UserError for what is not in the published layout."""
    trained, codec = Trained.of(weights, "x_embedder.proj.conv_in_1.weight"), wishes.codec()
    size = trained.sized(wishes, codec)
    diffusion = wishes.diffusion(DIFFUSION)
    experts = shape_of(weights, GATE, 2)[0]
    config = RunConfig(
        tasks=dict(TASKS),
        data={
            "hypersim": HypersimSettings(root="hypersim", size=size),
            "pix2gestalt": Pix2GestaltSettings(root="pix2gestalt", size=size),
            "flyingchairs": FlyingChairsSettings(root="flyingchairs", size=size),
        },
        model=trained.model(f"{trained.name}-{experts}E{ACTIVE}A", input="per_task"),
        codec=wishes.codec_settings,
        diffusion=diffusion,
        training=TrainingSettings(precision="float32"),  # as published
        evaluation=EvaluationSettings(nfe=50, members=4, temperature=1.0, views="none"),
    )
    compare(weights, _published(expected(config, codec), trained))
    notes = [
        *weights.notes,
        f"{config.model.name}: heads as in the size table and {ACTIVE} active experts as "
        f"published, shapes do not say them",
        f"the {CLASSES} ImageNet rows were dropped: no input convolution belongs to them",
        "depth: the validity prompt is all ones",
        *wishes.notes(diffusion),
    ]
    return Converted(config, _ours(weights.tensors), dict.fromkeys(TASKS, size), codec, notes=notes)


def _published(ours: Mapping[str, Tensor], trained: Trained) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the file of the backbone `ours`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in published_shapes(ours, trained.side).items():
        before, experts, after = name.partition(".moe.experts.")
        if name.startswith("x_embedder.proj."):
            shapes |= _convolutions(name, shape, trained.patch)
        elif experts:
            shapes |= {f"{before}{experts}{e}.{after}": shape[1:] for e in range(shape[0])}
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
    ours: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, value in weights.items():
        if expert := EXPERT.fullmatch(name):
            stacks[f"{expert[1]}.{expert[3]}"][int(expert[2])] = value
        elif row := CONVOLUTION.fullmatch(name):
            stacks[f"x_embedder.proj.{row[2]}"][int(row[1])] = _target_first(value)
        elif name == LABELS:
            ours[name] = value[CLASSES:].float()
        elif name != POSITIONS:
            ours[name] = value.float()
    for name, stack in stacks.items():
        ours[name] = torch.stack([stack[number] for number in sorted(stack)]).float()
    ours[KERNEL] = ours[KERNEL].flatten(2)
    return ours


def _target_first(value: Tensor) -> Tensor:
    """A kernel "o i p p" with the noisy target's channels moved from the end to the beginning."""
    return value.roll(VAE.latents, dims=1) if value.ndim == 4 else value
