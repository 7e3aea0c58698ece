"""The perception generalist of Ravishankar et al. 2024, `dit_moe_generalist.pt`.

A DiT with experts and an input convolution a task, for depth, amodal completion and optical flow
("Scaling Properties of Diffusion Models for Perceptual Tasks"). Its names are DiT's, but for

* `blocks.{i}.moe.experts.{e}.fc1.weight`: an expert each, which we stack;
* `x_embedder.proj.conv_in_{n}.weight`, n from 1: a convolution each, which we stack and flatten,
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
    UNKNOWN_VAE,
    VAE,
    Trained,
    Wishes,
    expected,
    published_shapes,
    shape_of,
)
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.write import Converted
from stepsight.data.config import SourceSettings
from stepsight.data.readers.config import (
    FlyingChairsSettings,
    HypersimSettings,
    Pix2GestaltSettings,
)
from stepsight.diffusion.config import DiffusionSettings
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.codec import Codec
from stepsight.models.config import CodecSettings, ModelSettings
from stepsight.tasks.config import AmodalSettings, DepthSettings, FlowSettings, TaskSettings

CLASSES = 1000  # rows of ImageNet, before those of the tasks
ACTIVE = 2  # experts a token: no shape tells
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
    config = _config(weights, trained, wishes, diffusion, codec)
    compare(weights, _published(expected(config, codec), trained))
    notes = [
        *weights.notes,
        f"{config.model.name}: heads as in the size table and {ACTIVE} active experts as "
        f"published, shapes do not tell them",
        f"the {CLASSES} ImageNet rows were dropped: no input convolution belongs to them",
        "depth: the validity prompt is all ones",
        *wishes.notes(diffusion),
    ]
    return Converted(config, _own(weights.tensors), dict.fromkeys(TASKS, size), codec, notes=notes)


def _config(
    weights: Weights,
    trained: Trained,
    wishes: Wishes,
    diffusion: DiffusionSettings,
    codec: Codec | None,
) -> RunConfig:
    experts = shape_of(weights, GATE, 2)[0]
    return RunConfig(
        tasks=dict(TASKS),
        data=_data(trained.sized(wishes, codec)),
        model=ModelSettings(
            f"{trained.name}-{experts}E{ACTIVE}A",
            input="per_task",
            gate_init=0.0,
            learned_variance=True,
            position_grid=trained.grid,
        ),
        codec=CodecSettings(str(wishes.vae or UNKNOWN_VAE)),
        diffusion=diffusion,
        evaluation=EvaluationSettings(nfe=50, members=4, temperature=1.0, views="none"),
    )


def _data(size: tuple[int, int]) -> dict[str, SourceSettings]:
    """What the generalist was trained on."""
    return {
        "hypersim": HypersimSettings(root="hypersim", size=size),
        "pix2gestalt": Pix2GestaltSettings(root="pix2gestalt", size=size),
        "flyingchairs": FlyingChairsSettings(root="flyingchairs", size=size),
    }


def _published(own: Mapping[str, Tensor], trained: Trained) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the file of the backbone `own`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in published_shapes(own, trained.side).items():
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
    kind = name.rpartition(".")[2]
    one = shape[1:]
    if kind == "weight":
        one = (shape[1], shape[2] // patch**2, patch, patch)
    return {f"x_embedder.proj.conv_in_{row + 1}.{kind}": one for row in range(shape[0])}


def _own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, in float32."""
    own: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, value in weights.items():
        if found := EXPERT.fullmatch(name):
            stacks[f"{found[1]}.{found[3]}"][int(found[2])] = value
        elif found := CONVOLUTION.fullmatch(name):
            stacks[f"x_embedder.proj.{found[2]}"][int(found[1])] = _target_first(value)
        elif name == LABELS:
            own[name] = value[CLASSES:].float()
        elif name != POSITIONS:
            own[name] = value.float()
    for name, stack in stacks.items():
        own[name] = torch.stack([stack[number] for number in sorted(stack)]).float()
    own[KERNEL] = own[KERNEL].flatten(2)
    return own


def _target_first(value: Tensor) -> Tensor:
    """A kernel "o i p p" with the noisy target's channels moved from the end to the beginning."""
    return value.roll(VAE.latents, dims=1) if value.ndim == 4 else value
