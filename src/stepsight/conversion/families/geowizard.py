"""GeoWizard (Fu et al. 2024): depth and normals of one picture, denoised together.

The latents of both are rows of a U-Net of Stable Diffusion 2 beside the picture's, from the same
noise. In its self-attentions the two share their keys and values, and four numbers tell it which is
which: sine and cosine of (0, 1) for depth, of (1, 0) for normals. The kind of picture is told as
well: in the first version by six numbers more, sine and cosine of one of three, while
cross-attention reads what CLIP sees in the picture; in the second by the prompt "indoor geometry"
or its kin.

The published code shares keys and values only where xformers is installed, and is silent where it
is not; weights were trained with it, and here they always do. It resizes by Pillow's bicubic
filter, stretches each depth to [0, 1], and turns the normals that the network answers, x right, y
down, z forward, round before it shows them. Nothing in the folders says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stepsight.conversion.clip import ACTIVATIONS, FILES, prompt_of, stored_prompt
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.source import Source
from stepsight.conversion.folders import CONFIG, read_json, read_part, refuse_unknown
from stepsight.conversion.vision import PROCESSOR, VISION, described, from_transformers
from stepsight.conversion.write import Converted
from stepsight.errors import UserError, suggest
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import DepthSettings, NormalsSettings

DOMAINS = ("indoor", "outdoor", "object")
PLACES = ((0.0, 1.0), (1.0, 0.0))  # of depth and normals, as the U-Net is told
PROFILE = Profile(
    "geowizard",
    fit="longest_scaled",
    resolution=768,
    resize_input="pillow_cubic",
    resize_answer={"depth": "pillow_cubic", "normals": "nearest"},
    noise="shared",
    nfe=10,
    members=10,
    tasks={
        "depth": {
            "clip": True,
            "stretch": True,
            "low": 0.0,
            "high": 1.0,
            "merge_by": "published",
            "merge_resolution": 0,
            "merge_pairs": "together",
        },
        "normals": {"merge_by": "whole"},
    },
)
FIXED = (
    "10 members of 10 steps, the longer side at 768 pixels, what the U-Net is told, normals that "
    "point right, down and forward: fixed in GeoWizard's code, in no file"
)
PREPROCESSOR = f"{PROCESSOR}/preprocessor_config.json"
# Of the image encoder's configuration: what is read or changes nothing, and what the shapes of its
# weights say as well, by the names of `described`.
ENCODER = (
    *("hidden_act", "num_attention_heads", "layer_norm_eps", "num_channels", "model_type"),
    *("attention_dropout", "dropout", "initializer_factor", "initializer_range"),
    *("architectures", "torch_dtype", "dtype", "transformers_version"),
)
SHAPES = {
    "hidden_size": "width",
    "intermediate_size": "hidden",
    "num_hidden_layers": "depth",
    "patch_size": "patch",
    "image_size": "size",
    "projection_dim": "embedding",
}
# Of the processor's: what is read, and what the publisher's code does in ways of its own.
PROCESSED = {
    *("crop_size", "image_mean", "image_std", "do_center_crop", "do_convert_rgb", "do_normalize"),
    *("do_rescale", "do_resize", "feature_extractor_type", "image_processor_type", "resample"),
    *("rescale_factor", "size"),
}


def geowizard(source: Source, wishes: Wishes) -> Converted:
    """Both versions, told apart by the image encoder that the first one has."""
    source.check(8)
    sees = VISION in source.index
    domain = _domain(source, wishes)
    switch = _switch(domain if sees else None)
    source.check_switch(switch.shape[1])
    source.assumed.append(FIXED)
    more: dict[str, Any] = {"places": len(PLACES)}
    published: dict[str, Any] = {"domain": domain}
    beside: dict[str, Tensor] = {}
    if sees:
        prompt = torch.zeros(1, 1, source.unet["cross_attention_dim"])  # which is not read
        more["vision"], beside, published["files"] = _vision(source)
    else:
        words = (domain, "geometry")
        prompt = stored_prompt(source.path) if source.written else prompt_of(source.path, words)
    tasks = [DepthSettings(space="linear"), NormalsSettings(place=1)]
    converted = source.run(
        tasks,
        source.scheduler(),
        PROFILE,
        side=PROFILE.resolution,
        prompt=prompt,
        switch=switch,
        beside=beside,
        more=more,
    )
    converted.meta["published"] |= published
    converted.notes = [converted.notes[0], f"pictures are {domain} (--domain)"]
    return converted


def _domain(source: Source, wishes: Wishes) -> str:
    """The kind of picture it is asked for."""
    if wishes.domain not in (None, *DOMAINS):
        raise UserError(f"--domain {wishes.domain}: unknown.{suggest(wishes.domain, DOMAINS)}")
    exported = source.written.get("domain")
    if exported and wishes.domain not in (None, exported):
        raise UserError(
            f"--domain {wishes.domain}: {source.path} was exported for {exported} pictures. Import "
            f"the published folder again."
        )
    if exported is None and wishes.domain is None:
        source.assumed.append("pictures are indoor (--domain outdoor or object)")
    return exported or wishes.domain or "indoor"


def _switch(domain: str | None) -> Tensor:
    """What the U-Net is told of each label row, "r s": depth, normals, and nothing."""
    told = torch.tensor(PLACES)
    numbers = torch.cat([told.sin(), told.cos()], dim=1)
    if domain is not None:
        kind = torch.tensor([[float(one == domain) for one in DOMAINS]]).expand(len(told), -1)
        numbers = torch.cat([numbers, kind.sin(), kind.cos()], dim=1)
    return torch.cat([numbers, torch.zeros_like(numbers[:1])])


def _vision(source: Source) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """CLIP's image encoder: its arguments, its weights by our names, and the files about it."""
    folder = source.path / VISION
    config, processor = read_json(folder / CONFIG), read_json(source.path / PREPROCESSOR)
    refuse_unknown(config, (*ENCODER, *SHAPES), folder / CONFIG)
    refuse_unknown(processor, PROCESSED, source.path / PREPROCESSOR)
    weights = from_transformers(read_part(folder, *FILES).tensors)
    size = described(weights, config["num_attention_heads"])
    for key, value in {key: size[name] for key, name in SHAPES.items()}.items():
        if config.get(key, value) != value:
            raise UserError(f"{folder / CONFIG}: {key} is {config[key]!r}; weights say {value}.")
    crop, act = processor.get("crop_size"), config.get("hidden_act", "quick_gelu")
    if crop != {"height": size["size"], "width": size["size"]} or act not in ACTIVATIONS:
        raise UserError(
            f"{source.path}: the image encoder sees squares of {size['size']} pixels and computes "
            f"{' or '.join(ACTIVATIONS)}; {PREPROCESSOR} says crop_size {crop}, and "
            f"{VISION}/{CONFIG} hidden_act {act}."
        )
    mean, std = processor["image_mean"], processor["image_std"]
    if torch.tensor([mean, std]).shape != (2, 3) or min(std) <= 0:
        raise UserError(
            f"{source.path / PREPROCESSOR}: image_mean and image_std are {mean} and {std}; three "
            f"numbers each are needed, the latter above 0."
        )
    vision = {
        **size,
        "activation": act,
        "eps": float(config.get("layer_norm_eps", 1e-5)),
        "mean": mean,
        "std": std,
    }
    files = {f"{VISION}/{CONFIG}": config, PREPROCESSOR: processor}
    return vision, {f"vision.net.{name}": value for name, value in weights.items()}, files
