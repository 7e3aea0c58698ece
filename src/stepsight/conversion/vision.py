"""The weights of CLIP's image encoder in the layouts it is published in: that of transformers'
`CLIPVisionModelWithProjection`, and OpenAI's own (`visual.*` of clip's checkpoints).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stepsight.errors import UserError

VISION, PROCESSOR = "image_encoder", "feature_extractor"  # folders of a pipeline
# Parts of names in order: theirs, ours.
TRANSFORMERS = (
    ("vision_model.embeddings.class_embedding", "cls_token"),
    ("vision_model.embeddings.position_embedding.weight", "pos_embed"),
    ("vision_model.embeddings.patch_embedding.", "patch_embed.proj."),
    ("vision_model.pre_layrnorm.", "norm_pre."),
    ("vision_model.post_layernorm.", "norm."),
    ("vision_model.encoder.layers.", "blocks."),
    (".self_attn.out_proj.", ".attn.proj."),
    (".layer_norm", ".norm"),
    ("visual_projection.", "head."),
)
OPENAI = (
    ("class_embedding", "cls_token"),
    ("positional_embedding", "pos_embed"),
    ("conv1.", "patch_embed.proj."),
    ("ln_pre.", "norm_pre."),
    ("ln_post.", "norm."),
    ("transformer.resblocks.", "blocks."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".ln_", ".norm"),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
NEW_AXES = {"cls_token": 2, "pos_embed": 1}  # leading axes of size 1 that ours have on top
Weights = dict[str, Tensor]


def from_transformers(weights: Mapping[str, Tensor]) -> Weights:
    """Ours (`models.vision.ImageEncoder`), but for their "net.", from transformers' layout."""
    ours: Weights = {}
    for name, value in weights.items():
        if name.endswith(".position_ids"):
            continue
        ours[_renamed(name, TRANSFORMERS)] = value
    for name in [name for name in ours if ".self_attn.q_proj." in name]:
        parts = [ours.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        ours[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat(parts)
    return _with_axes(ours)


def from_openai(weights: Mapping[str, Tensor]) -> Weights:
    """Ours, but for their "net.", from OpenAI's layout without its "visual."."""
    ours = {_renamed(name, OPENAI): value for name, value in weights.items()}
    if "proj" in ours:
        ours["head.weight"] = ours.pop("proj").T.contiguous()
    return _with_axes(ours)


def to_transformers(ours: Mapping[str, Tensor]) -> Weights:
    """The way back to transformers' layout."""
    theirs: Weights = {}
    for name, value in ours.items():
        for _ in range(NEW_AXES.get(name, 0)):
            value = value[0]
        if ".attn.qkv." not in name:
            theirs[_renamed(name, [pair[::-1] for pair in TRANSFORMERS])] = value.contiguous()
            continue
        published = _renamed(name, [pair[::-1] for pair in TRANSFORMERS])
        for part, chunk in zip("qkv", value.chunk(3), strict=True):
            named = published.replace("attn.qkv", f"self_attn.{part}_proj")
            theirs[named] = chunk.contiguous()
    return theirs


def to_openai(ours: Mapping[str, Tensor]) -> Weights:
    """The way back to OpenAI's layout, without its "visual."."""
    theirs: Weights = {}
    for name, value in ours.items():
        for _ in range(NEW_AXES.get(name, 0)):
            value = value[0]
        theirs[_renamed(name, [pair[::-1] for pair in OPENAI])] = value.contiguous()
    if "head.weight" in theirs:
        theirs["proj"] = theirs.pop("head.weight").T.contiguous()
    return theirs


def described(ours: Mapping[str, Tensor], heads: int = 0) -> dict[str, Any]:
    """The arguments of an `ImageEncoder` that the shapes of its weights say. heads: of the
    attention, which they do not; 0: of 64 channels each, as in all of OpenAI's.

    Raises UserError for weights that are none of one.
    """
    lacking = [
        name for name in ("pos_embed", "patch_embed.proj.weight", "head.weight") if name not in ours
    ]
    if lacking:
        raise UserError(f"an image encoder of CLIP lacks {', '.join(lacking)}.")
    kernel, tokens = ours["patch_embed.proj.weight"], ours["pos_embed"].shape[1]
    width, patch, side = kernel.shape[0], kernel.shape[-1], math.isqrt(tokens - 1)
    if side < 1 or side * side != tokens - 1:
        raise UserError(f"an image encoder of CLIP sees a square, not {tokens - 1} patches.")
    return {
        "size": side * patch,
        "patch": patch,
        "width": width,
        "depth": len({name.split(".")[1] for name in ours if name.startswith("blocks.")}),
        "heads": heads or width // 64,
        "hidden": ours["blocks.0.mlp.fc1.weight"].shape[0],
        "embedding": ours["head.weight"].shape[0],
    }


def _renamed(name: str, pairs: Any) -> str:
    for before, after in pairs:
        if before.startswith("."):
            name = name.replace(before, after)
        elif name.startswith(before):
            name = after + name.removeprefix(before)
    return name


def _with_axes(ours: Weights) -> Weights:
    for name, count in NEW_AXES.items():
        if name in ours:
            ours[name] = ours[name][(None,) * count]
    return ours
