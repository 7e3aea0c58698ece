"""U-Nets of diffusers as backbones: conditioned on a stored prompt, or on classes.

Input channels are in the order of the published image-conditioned checkpoints: condition first,
noisy target last. Label and time are all else the network is given, so options of diffusers that
ask for more are refused. (What the first convolution makes of the condition could be kept for all
calls: it is a thousandth of a call, and the sum would not be diffusers' to the last digit.)

Shapes: b batch, c channels of the target, k channels of the condition, n prompt tokens, d width.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from stepsight.errors import UserError, suggest
from stepsight.models.config import ModelSettings, UNetSize
from stepsight.models.joint import apart, attend_jointly, together
from stepsight.noise_levels import LEVELS
from stepsight.plugins import resolve

TEXT, CLASS = "UNet2DConditionModel", "UNet2DModel"  # `_class_name` in a published config.json
TOKENS = 2  # of the empty prompt under CLIP without padding: begin and end
SEEING = "stepsight.models.seeing:SeeingUNet"  # of a configuration with `vision`
SWITCHED = "projection"  # `class_embed_type` of a U-Net that numbers tell its task

WAYS = ("onward", "tempered")  # of a `TextUNet`

Net = TypeVar("Net", UNet2DModel, UNet2DConditionModel)

# What a wrong value of the configuration comes to in diffusers, which checks few of them.
BROKEN = (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)

# The only values under which image, real-valued time and label are all the input there is.
FIXED = {
    "time_embedding_type": "positional",
    "class_embed_type": None,
    "addition_embed_type": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
}


class ConditionedUNet(nn.Module):
    """A U-Net of diffusers that reads the condition before the target."""

    def __init__(self, unet: UNet2DModel | UNet2DConditionModel) -> None:
        super().__init__()
        self.unet, self.coarsest = unet, 2 ** (len(unet.config["block_out_channels"]) - 1)
        # diffusers' U-Nets for text bring what they join to one size, those without do not
        self.stride = 1 if isinstance(unet, UNet2DConditionModel) else self.coarsest

    def encode(
        self, cond: Tensor, label: Tensor, features: Tensor | None = None, *_: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The condition "b k h w" as it is: (that,).

        `label` and what follows the features are not read; they are for backbones whose encoding
        depends on the task, takes features, or looks at a picture once for several samples.
        """
        assert features is None, "a U-Net has no input for features"
        return (cond,)

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        looked: Tensor | None = None,
    ) -> Tensor:
        assert features is None and looked is None, "a U-Net has no input for them"
        encoded = self.encode(cond, label) if isinstance(cond, Tensor) else cond
        given = self._conditioning(label.expand(len(x)), encoded)
        return self.unet(torch.cat([encoded[0], x], 1), time, *given, return_dict=False)[0]

    def _conditioning(
        self, label: Tensor, encoded: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """What the U-Net is given after image and time."""
        return (label,)


class TextUNet(ConditionedUNet):
    """(x "b c h w", cond "b k h w", time "b", label "b") -> "b c h w", by a U-Net made for text.

    Cross-attention reads a stored prompt embedding per label, `prompt` "labels+1 n d" with the null
    row last. It starts at zero; an importer fills it with the embedding of the empty prompt. It is
    a parameter without gradient, not a buffer, so that averaged weights hold it too.

    Where the configuration's `class_embed_type` is "projection", so is `switch` "labels+1 s", the
    numbers that tell such a U-Net its task, which it adds to the time embedding.

    config: arguments of diffusers' class; its numbers of channels are replaced. Where it has
    `places` above 1, these parts of the target are rows that attend to each other (`models.joint`).
    tokens: n. onward: whether it is told how much of the way from noise to data is done, in [0, 1],
    and answers the velocity towards data (as Lipman et al. 2023 count), where others are told the
    level and answer the velocity towards noise. tempered: whether self-attention over n places is
    softened by sqrt(log n / log 4n) (after Jin et al. 2023, eq. 10).
    Raises UserError for a configuration that diffusers refuses or that needs more input.
    """

    further: dict[str, Any] = {}  # what its configuration holds besides diffusers' own

    def __init__(
        self,
        config: dict[str, Any],
        target_channels: int,
        cond_channels: int,
        labels: int,
        tokens: int,
        onward: bool = False,
        tempered: bool = False,
    ) -> None:
        kind = config.get("class_embed_type")
        projected = {"class_embed_type": SWITCHED} if kind == SWITCHED else {}
        _check(config, FIXED | {"num_class_embeds": None} | projected)
        config = dict(config)
        places = config.pop("places", 1)
        if type(places) is not int or places < 1 or target_channels % places:
            raise UserError(
                f"model.unet: places is {places!r}, but a target of {target_channels} channels "
                f"falls into no such number of equal parts."
            )
        each = target_channels // places
        super().__init__(_construct(UNet2DConditionModel, config, each, cond_channels))
        self.places = places
        if places > 1:
            attend_jointly(self.unet, places)
        width = self.unet.config["cross_attention_dim"]
        if not isinstance(width, int):
            raise UserError(
                f"model.unet: cross_attention_dim is {width}, but every level reads the same "
                "prompt. Give one integer."
            )
        self.onward, self.tempered = onward, tempered
        if tempered:
            for name, module in self.unet.named_modules():
                if name.endswith("attn1.to_q"):
                    module.register_forward_hook(_softened)
        self.prompt = nn.Parameter(torch.zeros(labels + 1, tokens, width), requires_grad=False)
        numbers = self.unet.config["projection_class_embeddings_input_dim"] if projected else 0
        switch = nn.Parameter(torch.zeros(labels + 1, numbers), requires_grad=False)
        self.switch = switch if projected else None

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        looked: Tensor | None = None,
    ) -> Tensor:
        if self.places > 1:
            encoded = self.encode(cond, label) if isinstance(cond, Tensor) else cond
            rows = apart(x, encoded, time, self.places)
            return together(super().forward(*rows, features, looked), self.places)
        if not self.onward:
            return super().forward(x, cond, time, label, features, looked)
        return -super().forward(x, cond, 1 - time / LEVELS, label, features, looked)

    def _conditioning(
        self, label: Tensor, encoded: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        return self.prompt[label], None if self.switch is None else self.switch[label]


class ClassUNet(ConditionedUNet):
    """(x "b c h w", cond "b k h w", time "b", label "b") -> "b c h w", by a U-Net without text.

    The label, a row of a table with the null row last, is added to the time embedding.

    config: arguments of diffusers' class; its numbers of channels and classes are replaced.
    Raises UserError for a configuration that diffusers refuses or that needs more input.
    """

    def __init__(
        self, config: dict[str, Any], target_channels: int, cond_channels: int, labels: int
    ) -> None:
        _check(config, FIXED)
        config = config | {"num_class_embeds": labels + 1}
        super().__init__(_construct(UNet2DModel, config, target_channels, cond_channels))


def _softened(module: nn.Module, given: tuple[Tensor, ...], queries: Tensor) -> Tensor:
    """Queries "b n d" of a tempered self-attention."""
    places = queries.shape[1]
    return queries * math.sqrt(math.log(places) / math.log(4 * places))


def build_unet(
    settings: ModelSettings,
    size: UNetSize | None,
    target_channels: int,
    cond_channels: int,
    labels: int,
) -> TextUNet | ClassUNet:
    """The U-Net of a row of the size table, or of `settings.unet` where `size` is None.

    `settings.unet` is a diffusers configuration with its `_class_name`, and with "tokens" for a
    prompt that is not of the default length. Raises UserError where it is none.
    """
    config = _read(settings.unet) if size is None else _row(size)
    kind = config.pop("_class_name", None)
    if kind == TEXT:
        tokens = config.pop("tokens", TOKENS)
        if type(tokens) is not int or tokens < 1:
            raise UserError(f"model.unet: tokens is {tokens!r}, not a positive integer.")
        ways = {name: bool(config.pop(name, False)) for name in WAYS}
        if "vision" in config:
            return resolve(SEEING)(config, target_channels, cond_channels, labels)
        return TextUNet(config, target_channels, cond_channels, labels, tokens, **ways)
    if kind == CLASS:
        return ClassUNet(config, target_channels, cond_channels, labels)
    raise UserError(f"model.unet: _class_name is {kind!r}.{suggest(str(kind), (TEXT, CLASS))}")


def diffusers_config(net: TextUNet | ClassUNet) -> dict[str, Any]:
    """The configuration that rebuilds `net` as `ModelSettings(name="unet", unet=<its JSON>)`."""
    stored = json.loads(net.unet.to_json_string())
    public = {key for key in stored if not key.startswith("_")} | {"_class_name"}
    config = {key: value for key, value in stored.items() if key in public}
    if not isinstance(net, TextUNet):
        return config
    ways: dict[str, Any] = {name: True for name in WAYS if getattr(net, name)}
    ways |= {"places": net.places} if net.places > 1 else {}
    return config | {"tokens": net.prompt.shape[1]} | ways | net.further


def _row(size: UNetSize) -> dict[str, Any]:
    """The configuration of a row. Text: attention everywhere but at the lowest level, as in Stable
    Diffusion. Classes: attention at the lowest level alone, which pixels can afford."""
    upper = len(size.channels) - 1
    config: dict[str, Any] = {"block_out_channels": size.channels}
    if size.text is None:
        return config | {
            "_class_name": CLASS,
            "down_block_types": ("DownBlock2D",) * upper + ("AttnDownBlock2D",),
            "up_block_types": ("AttnUpBlock2D",) + ("UpBlock2D",) * upper,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "attention_head_dim": 32,
            **size.options,
        }
    tokens, width = size.text
    return config | {
        "_class_name": TEXT,
        "tokens": tokens,
        "cross_attention_dim": width,
        "down_block_types": ("CrossAttnDownBlock2D",) * upper + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * upper,
        **size.options,
    }


def _read(unet: str) -> dict[str, Any]:
    """A configuration from JSON text, or from the file of that name."""
    inline = unet.lstrip().startswith("{")
    where = "model.unet" if inline else f"model.unet '{unet}'"
    try:
        config = json.loads(unet if inline else Path(unet).read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"{where}: cannot be read ({error.strerror}). Model 'unet' needs the configuration of "
            "a diffusers U-Net: JSON text, or the path of its config.json."
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: no JSON ({error}).") from error
    if not isinstance(config, dict):
        raise UserError(f"{where}: a JSON object is needed, not a {type(config).__name__}.")
    return config


def _check(config: dict[str, Any], fixed: dict[str, str | None]) -> None:
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UserError(
                f"model.unet: {key} is {config[key]!r}, but has to be {json.dumps(value)}: the "
                "network is given images, a real-valued time and a label, and nothing else."
            )


def _check_input(config: dict[str, Any]) -> None:
    """Refuse what changes the images before the first convolution, or reads them beside it."""
    unsupported = [name for name in config["down_block_types"] if "Skip" in name]
    unsupported += ["center_input_sample"] if config["center_input_sample"] else []
    if unsupported:
        raise UserError(
            f"model.unet: {unsupported[0]} is not supported, as images enter by the first "
            "convolution alone. Choose blocks without Skip, and center_input_sample false."
        )


def _construct(
    kind: type[Net], config: dict[str, Any], target_channels: int, cond_channels: int
) -> Net:
    """diffusers' class; what only describes the file (keys that begin with _) is left out."""
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    arguments["in_channels"] = cond_channels + target_channels
    arguments["out_channels"] = target_channels
    try:
        unet = kind(**arguments)
    except BROKEN as error:
        raise UserError(f"model.unet: diffusers refuses the configuration: {error}") from error
    _check_input(unet.config)
    return unet
