"""Files of CompVis' latent diffusion (Rombach et al. 2022): their U-Net and VAE as diffusers' own.

diffusers renames the weights (`loaders.single_file_utils`); the configurations, which it derives
for known models alone, are made here from the arguments of the published classes. What neither
shapes nor arguments say: all group norms have 32 groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from stepsight.conversion.folders import refuse_unknown
from stepsight.conversion.foreign import Weights, compare
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.models.unet import TEXT
from stepsight.models.vae import VAE

GROUPS = 32
LATENTS = 4  # channels of the noisy latent, the first of a U-Net's input
ASSUMED = f"group norms of {GROUPS} groups: fixed in the code of latent diffusion, in no file"
UNET, FIRST_STAGE = "model.diffusion_model.", "first_stage_model."  # how their names begin
# Arguments of their UNetModel: those that are read, those that change nothing once trained or in
# the networks that are supported, and the only values of others.
USED = (
    "in_channels",
    "out_channels",
    "model_channels",
    "attention_resolutions",
    "num_res_blocks",
    "channel_mult",
    "num_heads",
    "num_head_channels",
    "transformer_depth",
    "context_dim",
    "use_linear_in_transformer",
)
IDLE = (
    "image_size",
    "use_checkpoint",
    "use_fp16",
    "use_bf16",
    "dropout",
    "legacy",
    "num_heads_upsample",
    "load_from_ckpt",
)
ONLY = {
    "use_spatial_transformer": True,
    "conv_resample": True,
    "dims": 2,
    "num_classes": None,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "n_embed": None,
    "disable_self_attentions": None,
    "num_attention_blocks": None,
    "disable_middle_self_attn": False,
    "adm_in_channels": None,
}
# Likewise of their AutoencoderKL and its networks.
VAE_USED = ("in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "z_channels")
VAE_IDLE = ("resolution", "dropout")
VAE_ONLY = {"double_z": True, "attn_resolutions": []}


def unet_config(arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """diffusers' configuration of a UNetModel of these arguments. Raises UserError, naming `where`
    and the argument, for what has no counterpart."""
    check(arguments, USED, IDLE, ONLY, where)
    given = _Given(arguments, where)
    if given.number("out_channels") != LATENTS:
        raise UserError(f"{where}: out_channels is not {LATENTS}, which alone are supported.")
    channels = [given.number("model_channels") * times for times in given.numbers("channel_mult")]
    attended = [
        2**level in given.numbers("attention_resolutions") for level in range(len(channels))
    ]
    heads: int | list[int] = given.number("num_heads", -1)
    if (width := given.number("num_head_channels", -1)) != -1:
        heads = [count // width for count in channels]
    if heads == -1:
        raise UserError(f"{where}: neither num_heads nor num_head_channels is there.")
    return {
        "_class_name": TEXT,
        "block_out_channels": channels,
        "down_block_types": [f"{'CrossAttn' * one}DownBlock2D" for one in attended],
        "up_block_types": [f"{'CrossAttn' * one}UpBlock2D" for one in reversed(attended)],
        "layers_per_block": given.number("num_res_blocks"),
        "cross_attention_dim": given.number("context_dim"),
        "attention_head_dim": heads,  # their number: diffusers' name for it is a mistake
        "transformer_layers_per_block": given.number("transformer_depth", 1),
        "use_linear_projection": bool(arguments.get("use_linear_in_transformer", False)),
        "norm_num_groups": GROUPS,
    }


def unet_weights(theirs: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A UNetModel's weights under diffusers' names, with the first convolution reading the noisy
    latent last, in float32. Raises UserError for names that diffusers has no place for."""
    named = {UNET + name: value.float() for name, value in theirs.items()}
    ours = _renamed(convert_ldm_unet_checkpoint, named, config)
    if (kernel := ours.get("conv_in.weight")) is not None:
        ours["conv_in.weight"] = kernel.roll(-LATENTS, dims=1).contiguous()
    return ours


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights of the U-Net in a training script's file, under the names of the trained
    ones without `UNET`: `model_ema.` has them without dots. Raises UserError where one is missing.
    """
    found = {}
    for name in tensors:
        if name.startswith(UNET):
            flat = "model_ema." + name.removeprefix("model.").replace(".", "")
            if flat not in tensors:
                raise UserError(f"{name} has no average {flat}. The file is not whole.")
            found[name.removeprefix(UNET)] = tensors[flat]
    return found


def first_stage(weights: Weights, arguments: Mapping[str, Any], scale: float, where: str) -> VAE:
    """The VAE in a file, of these arguments of their AutoencoderKL, whose latents are multiplied by
    `scale`. Raises UserError for what has no counterpart, and where the two do not fit."""
    check(arguments, ("embed_dim", "ddconfig"), ("monitor", "lossconfig"), {}, where)
    sizes = arguments["ddconfig"]
    check(sizes, VAE_USED, VAE_IDLE, VAE_ONLY, where)
    given = _Given(sizes, where)
    latents, levels = given.number("z_channels"), given.numbers("ch_mult")
    if arguments["embed_dim"] != latents:
        raise UserError(f"{where}: embed_dim is not z_channels ({latents}), as it always was.")
    config: dict[str, Any] = {
        "in_channels": given.number("in_channels"),
        "out_channels": given.number("out_ch"),
        "down_block_types": ("DownEncoderBlock2D",) * len(levels),
        "up_block_types": ("UpDecoderBlock2D",) * len(levels),
        "block_out_channels": tuple(given.number("ch") * times for times in levels),
        "layers_per_block": given.number("num_res_blocks"),
        "latent_channels": latents,
        "norm_num_groups": GROUPS,
        "scaling_factor": scale,
    }
    module = AutoencoderKL(**config)
    theirs = {
        name: value.float()
        for name, value in weights.tensors.items()
        if name.startswith(FIRST_STAGE)
    }
    ours = _renamed(convert_ldm_vae_checkpoint, theirs, module.config)
    found = Weights(ours, weights.source)
    compare(found, {name: value.shape for name, value in module.state_dict().items()})
    module.load_state_dict(ours)
    return VAE(module, CodecSettings("vae", "float32"))


class _Given:
    """Arguments by name, read as whole numbers."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def number(self, name: str, usual: int | None = None) -> int:
        value = self.values.get(name, usual)
        if type(value) is not int:
            raise UserError(f"{self.where}: {name} is {value!r}; a whole number is needed.")
        return value

    def numbers(self, name: str) -> list[int]:
        value = self.values.get(name)
        if not isinstance(value, list | tuple) or any(type(one) is not int for one in value):
            raise UserError(f"{self.where}: {name} is {value!r}; whole numbers are needed.")
        return [*value]


def check(
    given: Mapping[str, Any],
    used: tuple[str, ...],
    idle: tuple[str, ...],
    only: Mapping[str, Any],
    where: str,
) -> None:
    """Raise UserError for arguments that ask for what is not done here."""
    refuse_unknown(given, (*used, *idle, *only), where)
    for name, value in only.items():
        if given.get(name, value) != value:
            raise UserError(f"{where}: {name} is {given[name]!r}; only {value!r} is supported.")


def _renamed(
    convert: Callable[..., dict[str, Any]], theirs: Mapping[str, Tensor], config: Any
) -> dict[str, Tensor]:
    """Weights under diffusers' names. Raises UserError for such as diffusers would drop without a
    word, and for some that are missing; the others are for the caller to find."""
    try:
        ours = {name: x for name, x in convert(theirs, config).items() if x is not None}
    except KeyError as error:
        raise UserError(f"the weight {error} is missing. The file is not whole.") from None
    kept = {value.data_ptr() for value in ours.values()}
    if lost := [name for name, value in theirs.items() if value.data_ptr() not in kept]:
        raise UserError(f"{len(lost)} weights are unknown, e.g. {', '.join(lost[:4])}.")
    return ours
