"""DepthFM (Gui et al. 2024, CompVis/depth-fm): depth by flow matching from the picture itself.

Paths lead from the noised latent of the picture to that of its log depth, next to the picture's own
latent, under the embedding of the empty prompt. The network is told how much of the way is done, in
[0, 1], and answers the velocity; Euler's steps are even. The published code softens self-attention
by the number of places, unless xformers is installed: here it is always done. The file is a pickle
of four entries: `state_dict`, a U-Net of latent diffusion, its arguments `ldm_hparams`,
`empty_text_embedding`, an array of NumPy, and `noising_step`, the level of the noise, of 1000,
under a cosine schedule.

What the published code does besides: sides are rounded to multiples of 64 by Pillow's bilinear
filter; the members' mean is the log depth, whose exponential is stretched over its range. It stays
at that size (its script resizes coloured pictures alone): here the log depth is resized with
antialiasing. Values are stretched over [1/e, e], the exponentials of -1 and 1, where the publisher
has [0, 1]: both are depth up to scale and shift.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from stepsight.coding import Layout
from stepsight.config import RunConfig
from stepsight.conversion.dit import VAE, Wishes
from stepsight.conversion.families import ldm
from stepsight.conversion.families.source import notes_of, unet_settings
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.write import Converted
from stepsight.data.config import ScenesSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.config import check_sides
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import DepthSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings

ENTRIES = ("noising_step", "empty_text_embedding", "ldm_hparams")  # beside the weights
BESIDE = ("stable-diffusion-v1-5", "vae")  # where the VAE may lie, from the file's folder
LEVELS = 1000
SIZE = (384, 512)  # of its training
PROFILE = Profile(
    "depthfm",
    fit="multiples",
    multiple=64,
    resize_input="pillow",
    nfe=2,
    members=4,
    tasks={
        "depth": {
            "low": math.exp(-1),
            "high": math.e,
            "stretch": True,
            "merge_by": "unaligned_mean",
        }
    },
)
ASSUMED = (
    ldm.ASSUMED,
    "paths from the noised latent of the picture, log depth: fixed in DepthFM's code, in no file",
    "self-attention softened as DepthFM's code does without xformers",
    f"{PROFILE.nfe} steps and {PROFILE.members} members: the defaults of DepthFM's script",
)


def import_depthfm(weights: Weights, wishes: Wishes) -> Converted:
    """DepthFM's file as a run. Raises UserError for what is not in its layout."""
    arguments, prompt, step = _entries(weights)
    folder = weights.source.parent.joinpath(*BESIDE)
    if wishes.vae is None and folder.is_dir():
        wishes = replace(wishes, vae=folder)
    codec, tasks = wishes.codec(), {"depth": DepthSettings(space="log")}
    check_sides(wishes.size or SIZE, (codec or VAE).downsample, "--size")
    unet = ldm.unet_config(arguments, f"{weights.source}: ldm_hparams")
    config = RunConfig(
        tasks=dict(tasks),
        data={"scenes": ScenesSettings()},
        model=unet_settings({**unet, "onward": True, "tempered": True}, prompt.shape[1]),
        codec=replace(wishes.codec_settings, memory="contiguous"),
        diffusion=_diffusion(step),
        training=TrainingSettings(precision="float32"),
        evaluation=EvaluationSettings(
            nfe=PROFILE.nfe, members=PROFILE.members, temperature=1.0, views="none"
        ),
    )
    with torch.device("meta"):
        net = Layout.of(build_tasks(tasks), codec or VAE).build(config.model)
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    named = ldm.unet_weights(weights.tensors, unet)
    ours = {f"unet.{name}": value for name, value in named.items()}
    ours["prompt"] = repeat(prompt, "1 n d -> r n d", r=shapes["prompt"][0]).contiguous()
    compare(replace(weights, tensors=ours), shapes)
    return Converted(
        config,
        ours,
        {"depth": wishes.size or SIZE},
        codec,
        {"published": {"noising_step": step, "ldm_hparams": arguments}},
        notes=[*weights.notes, *notes_of(config), *wishes.missing()],
        family="depthfm",
        profile=PROFILE,
        assumed=ASSUMED,
    )


def _entries(weights: Weights) -> tuple[dict[str, Any], Tensor, int]:
    """The arguments of the U-Net, the prompt "1 n d", and the level of the noise."""
    where, beside = weights.source, weights.beside
    if missing := [name for name in ENTRIES if name not in beside]:
        raise UserError(f"{where} has no {', '.join(missing)}: no file of DepthFM, or not whole.")
    if unknown := [name for name in beside if name not in ENTRIES]:
        raise UserError(f"{where}: {', '.join(unknown)} means nothing to DepthFM here.")
    step, prompt, arguments = (beside[name] for name in ENTRIES)
    if not isinstance(arguments, dict):
        raise UserError(f"{where}: ldm_hparams is a {type(arguments).__name__}, not a dict.")
    if type(step) is not int or not 0 < step < LEVELS:
        raise UserError(f"{where}: noising_step is {step!r}, no whole number from 1 to 999.")
    if not isinstance(prompt, np.ndarray) or prompt.ndim != 3 or len(prompt) != 1:
        raise UserError(f"{where}: empty_text_embedding is no array of shape 1, tokens, width.")
    return arguments, torch.from_numpy(prompt).float(), step


def _diffusion(step: int) -> DiffusionSettings:
    """Straight paths from the picture, whose share follows from alpha^2 / sigma^2 = 1 / tan^2 at
    the level; the published code adds 1e-5 to the tangent."""
    tangent = math.tan(math.pi / 2 * step / LEVELS) + 1e-5
    return DiffusionSettings(
        schedule="rectified_flow",
        prediction="v",
        shift=1.0,
        sampler="euler",
        sampling_shift=1.0,
        picture=1 / math.hypot(1, tangent),
    )
