"""Stable Diffusion 1 and 2 for inpainting (Rombach et al. 2022), in diffusers' layout.

The U-Net of `StableDiffusionInpaintPipeline` has nine input channels: the noisy latent (0 to 3),
the mask (4), and the latent of the picture with the masked part grey (5 to 8). Such a network knows
how to see a picture beside what it denoises, which makes it a start for other tasks. So it is
imported as it is where the mask hides nothing: the picture's channels are those of our condition,
the noisy ones those of our target, and what reads the mask, which is zero, is left out. It paints
the picture again, exactly as that pipeline does under an empty mask and the empty prompt.
"""

from __future__ import annotations

from torch import cat

from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.marigold import GENERATOR_STEPS
from stepsight.conversion.families.source import Source, Weights
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import ImageFolderSettings
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import ImageSettings

PICTURE, NOISY = slice(5, 9), slice(0, 4)  # of the nine channels, the mask between them


def inpainting(source: Source, wishes: Wishes) -> Converted:
    """A network that paints what it sees, to be fine-tuned."""
    source.check(9, "requires_safety_checker")
    side = 8 * (source.unet.get("sample_size") or 64)
    source.assumed.extend(
        (
            "the mask hides nothing, and what reads it is left out",
            f"pictures at {side}x{side} pixels, diffusers' default, but not resized by Lanczos",
        )
    )
    profile = Profile(
        source.family,
        fit="square",
        resolution=side,
        posterior="sample",
        nfe=GENERATOR_STEPS,
        members=1,
    )
    task, data = ImageSettings(classes=1, shown=True), ImageFolderSettings()
    converted = source.run(
        [task], source.scheduler(), profile, members=1, data=data, weights=_without_mask
    )
    converted.notes = [
        *converted.notes,
        "it paints the picture again under an empty mask; to fine-tune, name this run with "
        "--init-from",
    ]
    return converted


def _without_mask(weights: Weights) -> Weights:
    """The picture's channels first, as ours are, and then the noisy ones."""
    kernel = weights["conv_in.weight"]
    parts = [kernel[:, PICTURE], kernel[:, NOISY]]
    return {**weights, "conv_in.weight": cat(parts, dim=1)}
