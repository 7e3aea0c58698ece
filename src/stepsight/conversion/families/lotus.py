"""Lotus (He et al. 2025), generative (G) and discriminative (D), in diffusers' layout.

A U-Net of Stable Diffusion 2 answers the clean latent of a depth, disparity or normal map at once,
at the noisiest level: from noise beside the picture's latent (G, 8 channels), or from that latent
alone (D, 4 channels). Trained on other tasks as well, it is told by four numbers, sine and cosine
of (1, 0), that an annotation is asked for. What it sees is a sample of the latent's posterior.

The published code brings the longer side to 768 pixels and pads nothing; it clips decoded pictures
before it averages the three channels of depth, and takes the nearest pixel on the way back. Depth
is far at 1, disparity near; normals are those of Hypersim with x turned to the left. Nothing in
the folders says so, nor which of the three a folder predicts.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.marigold import DEPTH
from stepsight.conversion.families.source import Source, without_target
from stepsight.conversion.write import Converted
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import DepthSettings, NormalsSettings, TaskSettings

DISPARITY = DepthSettings(space="disparity")
NORMALS = NormalsSettings(axes="left_up_back")
RESOLUTION = 768
ANNOTATION = torch.tensor([1.0, 0.0])  # the task; (0, 1) is that of painting the picture again
FIXED = (
    "one step at level 999 whose answer is the clean latent, from a sample of the picture's; the "
    "longer side at 768 pixels; the task's numbers: fixed in Lotus's code, in no file"
)


def depth(source: Source, wishes: Wishes) -> Converted:
    """Linear depth."""
    return _lotus(source, DEPTH)


def disparity(source: Source, wishes: Wishes) -> Converted:
    """One over depth."""
    return _lotus(source, DISPARITY)


def normals(source: Source, wishes: Wishes) -> Converted:
    """Surface normals."""
    source.assumed.append("normals point left, up and back, as Lotus is trained: in no file")
    return _lotus(source, NORMALS)


def _lotus(source: Source, task: TaskSettings) -> Converted:
    noisy = source.index["_class_name"] == "LotusGPipeline"
    source.check(8 if noisy else 4, "requires_safety_checker")
    numbers = torch.cat([ANNOTATION.sin(), ANNOTATION.cos()])
    source.check_switch(len(numbers))
    source.assumed.append(FIXED)
    profile = Profile(
        source.family,
        fit="longest_scaled",
        resolution=RESOLUTION,
        resize_output="nearest_exact",
        posterior="sample",
        clip=True,
        nfe=1,
        members=1,
        tasks={"depth": {"low": 0.0, "high": 1.0}} if task == DEPTH else {},
    )
    diffusion = replace(
        source.scheduler(),
        prediction="x",
        spacing="trailing",
        final="clean",
        objective="denoising" if noisy else "end_to_end",
    )
    return source.run(
        [task],
        diffusion,
        profile,
        side=RESOLUTION,
        members=1,
        switch=numbers[None],
        weights=dict if noisy else without_target,
    )
