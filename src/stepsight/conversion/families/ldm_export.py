"""Runs imported from latent diffusion's files as such files: DepthFM and pix2gestalt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import yaml
from torch import Tensor

from stepsight import checkpoint
from stepsight.coding import saved_codec
from stepsight.conversion.families.depthfm import BESIDE
from stepsight.conversion.families.ldm import FIRST_STAGE, LATENTS, UNET
from stepsight.conversion.families.pix2gestalt import PROJECTION, SEEING
from stepsight.conversion.folders import read_part
from stepsight.conversion.vision import to_openai
from stepsight.errors import UserError
from stepsight.models.vae import WEIGHTS

# Parts of names: diffusers', theirs.
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def export_ldm(saved: checkpoint.Checkpoint, out: Path) -> list[str]:
    """Write the averaged weights as the file in `out` that they were imported from, with what lay
    beside it; returns notes. Raises UserError for weights of other origin."""
    family = saved.meta.get("family", "")
    if family not in ("depthfm", "pix2gestalt"):
        raise UserError(
            f"{saved.path} was not imported from a file of latent diffusion (DepthFM, pix2gestalt) "
            f"but from {family or 'nowhere'}. Export it as dit or folder."
        )
    published, weights = saved.meta["published"], saved.tensors(checkpoint.BACKBONE)
    codec = saved_codec(saved)
    out.mkdir(parents=True, exist_ok=True)
    if family == "depthfm":
        prompt = weights["prompt"][:1].numpy()
        stored = {**published, "empty_text_embedding": prompt, "state_dict": unet(weights)}
        torch.save(stored, out / "depthfm-v1.ckpt")
        codec.save(out.joinpath(*BESIDE))
        return [f"the VAE is in {out.joinpath(*BESIDE)}, where stable-diffusion-v1-5 has it"]
    vae = read_part(saved.home / checkpoint.CODEC, *WEIGHTS).tensors
    torch.save({"state_dict": _pix2gestalt(weights, vae)}, out / "pix2gestalt.ckpt")
    text = yaml.safe_dump({"model": published["model"]}, sort_keys=False)
    (out / "pix2gestalt.yaml").write_text(text, encoding="utf-8")
    return ["the trained weights are the averaged ones, and CLIP's reading of text is left out"]


def unet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The U-Net of a run under latent diffusion's names, the noisy latent first in its input."""
    ours = _under(weights, "unet.")
    ours["conv_in.weight"] = ours["conv_in.weight"].roll(LATENTS, dims=1).contiguous()
    named = unet_names(ours)
    return {named(name): value for name, value in ours.items()}


def unet_names(ours: Iterable[str]) -> Callable[[str], str]:
    """From diffusers' names of a U-Net's weights, all of which are given, to theirs."""
    known = {tuple(name.split(".")[:4]) for name in ours}
    per = 1 + sum(one[:3] == ("down_blocks", "0", "resnets") for one in known)  # blocks of a level

    def theirs(name: str) -> str:
        match name.split("."):
            case ["mid_block", "resnets", number, part, end]:
                return f"middle_block.{2 * int(number)}.{RESNET[part]}.{end}"
            case ["mid_block", "attentions", _, *rest]:
                return ".".join(["middle_block.1", *rest])
            case [side, block, "resnets", number, part, end]:
                return f"{_block(side, int(block) * per + int(number))}.0.{RESNET[part]}.{end}"
            case [side, block, "attentions", number, *rest]:
                return ".".join([_block(side, int(block) * per + int(number)), "1", *rest])
            case [side, block, "downsamplers", _, _, end]:
                return f"{_block(side, int(block) * per + per - 1)}.0.op.{end}"
            case [side, block, "upsamplers", _, _, end]:
                after = 1 + ((side, block, "attentions", "0") in known)
                return f"{_block(side, int(block) * per + per - 1)}.{after}.conv.{end}"
            case [*start, end]:
                return f"{TOP['.'.join(start)]}.{end}"
        raise AssertionError("a name has parts")

    return theirs


def _block(side: str, place: int) -> str:
    return f"input_blocks.{place + 1}" if side == "down_blocks" else f"output_blocks.{place}"


def first_stage(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of diffusers' AutoencoderKL under latent diffusion's names."""
    levels = len({name.split(".")[2] for name in ours if name.startswith("encoder.down_blocks.")})

    def level(side: str, block: str) -> str:
        return f"down.{block}" if side == "down_blocks" else f"up.{levels - 1 - int(block)}"

    found = {}
    for name, value in ours.items():
        match name.split("."):
            case [half, "mid_block", "attentions", _, *part, end]:
                value = (
                    value[..., None, None] if part != ["group_norm"] and end == "weight" else value
                )
                name = f"{half}.mid.attn_1.{ATTENTION['.'.join(part)]}.{end}"
            case [half, "mid_block", "resnets", number, *rest]:
                name = ".".join([half, f"mid.block_{int(number) + 1}", *rest])
            case [half, side, block, "resnets", number, *rest]:
                name = ".".join([half, level(side, block), f"block.{number}", *rest])
            case [half, side, block, kind, _, "conv", end]:
                name = f"{half}.{level(side, block)}.{kind.removesuffix('rs')}.conv.{end}"
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        found[name] = value
    return found


def _pix2gestalt(weights: Mapping[str, Tensor], vae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that the file holds but CLIP's reading of text."""
    network = {f"{UNET}{name}": value for name, value in unet(weights).items()}
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): value.clone()
        for name, value in network.items()
    }
    parts = {
        FIRST_STAGE: first_stage(vae),
        SEEING: to_openai(_under(weights, "vision.net.")),
        PROJECTION: _under(weights, "projection."),
    }
    named = {start + name: x for start, part in parts.items() for name, x in part.items()}
    return {**network, **averages, **named}


def _under(weights: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): value for n, value in weights.items() if n.startswith(start)}
