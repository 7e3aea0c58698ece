"""Settings of the backbone and the codec, and the table of sizes (standard library only).

A size is a row: the registry name, and the numbers that define the network. `parse` turns a name
such as `DiT-S/2`, `DiT-96x4/8` (96 wide, 4 blocks), `DiT-XL/2-8E2A` (8 experts, 2 active),
`split-32` or `unet-sd2` into its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stepsight.errors import UserError, suggest
from stepsight.execution.config import Precision
from stepsight.plugins import Registry


@dataclass(frozen=True)
class ModelSettings:
    """Which backbone, and the few choices that are not its size."""

    # a size: split-8 -32 -64, DiT-Ti to -XL /2 /4 /8, DiT-96x4/8, unet-...; see DIT, SPLIT, UNET
    name: str = "split-32"
    input: Literal["shared", "per_task"] = "shared"  # first convolution: one, or one per task
    # mup: one set of learning rates for all widths and depths of a family (models.parametrisation)
    parametrisation: Literal["standard", "mup"] = "standard"
    gate_init: float = 0.7  # residual gates at the start; 0 is adaLN-Zero
    qk_norm: bool = False  # DiT only
    learned_variance: bool = False  # DiT: as many output channels again, as published DiTs have
    position_grid: tuple[int, int] = (0, 0)  # DiT: tokens high, wide whose positions others stretch
    expert_weights: Literal["softmax", "renormalised"] = "softmax"  # of the chosen experts
    shared_experts: int = 0  # experts that every token passes, besides the routed ones
    balance: float = 0.01  # weight of the load-balance loss, per block
    unet: str = ""  # name "unet": its diffusers configuration, as JSON text or a file


Memory = Literal["auto", "contiguous", "channels_last"]


@dataclass(frozen=True)
class CodecSettings:
    """What images and targets are denoised as: pixels, or the latents of a VAE."""

    path: str = ""  # folder of a diffusers AutoencoderKL or AutoencoderTiny; empty: pixels
    precision: Precision = "auto"  # that the VAE computes in; auto: bf16 where it is fast
    # how channels lie in memory, which moves the last digits of float32: norms of large pictures
    # lose up to 3e-4 where they are last. auto: last, which is faster; channels_last: in the
    # encoder alone, as with code that hands on the memory of a picture
    memory: Memory = "auto"
    slicing: bool = False  # one image at a time: less memory
    tiling: bool = False  # large images in overlapping tiles: less memory, not exactly equal


@dataclass(frozen=True)
class DiTSize:
    """A diffusion transformer (Peebles & Xie 2023): width, blocks, heads, patch side.

    With experts, every MLP is a mixture of them, of which each token passes `active`.
    """

    width: int
    depth: int
    heads: int
    patch: int = 2
    experts: int = 0
    active: int = 0


@dataclass(frozen=True)
class SplitSize:
    """An encoder that reads a picture once, and a denoiser that is called again and again."""

    channels: tuple[int, int]  # at 1/2 and 1/4 of the size
    width: int  # of the transformers at 1/8
    heads: int
    encoder: tuple[int, int]  # residual blocks at 1/2 and 1/4
    trunk: int  # transformer blocks of the encoder
    blocks: int  # and of the denoiser
    decoder: tuple[int, int]  # residual blocks of the denoiser at 1/2 and 1/4


@dataclass(frozen=True)
class UNetSize:
    """A diffusers U-Net: conditioned on text embeddings, or on classes (pixel space)."""

    channels: tuple[int, ...]  # a level, full resolution first
    text: tuple[int, int] | None  # tokens and width of the empty prompt's embedding
    options: dict[str, object] = field(default_factory=dict)  # further arguments of the class

    def __hash__(self) -> int:
        return hash((self.channels, self.text))


@dataclass(frozen=True)
class AddedModel:
    """A backbone of another package: `build` takes what `models.factory.build` takes."""

    build: Callable[..., Any]


ADDED: Registry[Callable[..., Any]] = Registry({}, "models")  # builders by name

# name -> (width, depth, heads); the patch side follows the slash in the name.
# S to XL: DiT paper, table 1. a1 to a6: the ladder of "Scaling Properties of Diffusion Models for
# Perceptual Tasks" (a2-a5 as in its released code, a1 and a6 inferred from its parameter counts).
DIT: dict[str, tuple[int, int, int]] = {
    "DiT-Ti": (64, 3, 2),
    "DiT-Mi": (128, 4, 4),
    "DiT-S": (384, 12, 6),
    "DiT-B": (768, 12, 12),
    "DiT-L": (1024, 24, 16),
    "DiT-XL": (1152, 28, 16),
    "DiT-a1": (256, 12, 16),
    "DiT-a2": (512, 16, 16),
    "DiT-a3": (768, 20, 16),
    "DiT-a4": (1024, 24, 16),
    "DiT-a5": (1536, 28, 16),
    "DiT-a6": (1792, 32, 16),
}
PATCHES = (2, 4, 8)

SPLIT: dict[str, SplitSize] = {
    "split-8": SplitSize((8, 16), 24, 1, encoder=(1, 1), trunk=1, blocks=1, decoder=(1, 1)),
    "split-32": SplitSize((32, 64), 96, 3, encoder=(1, 2), trunk=3, blocks=2, decoder=(1, 1)),
    "split-64": SplitSize((64, 128), 256, 8, encoder=(2, 3), trunk=6, blocks=3, decoder=(1, 2)),
}

# Stable Diffusion 1 and 2: the configurations of their published unet/config.json.
UNET: dict[str, UNetSize] = {
    "unet-tiny": UNetSize((32, 64, 64), None),
    "unet-sd1": UNetSize((320, 640, 1280, 1280), (2, 768), {"attention_head_dim": 8}),
    "unet-sd2": UNetSize(
        (320, 640, 1280, 1280),
        (2, 1024),
        {"attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    ),
}
CUSTOM_UNET = "unet"  # of the configuration in ModelSettings.unet

DENSE = tuple(f"{base}/{patch}" for base in DIT for patch in PATCHES)
NAMES = (*SPLIT, *UNET, CUSTOM_UNET, *DENSE, "DiT-XL/2-8E2A")
VAE_PREFIX = "vae-"  # model.name of a run that trains a codec: models.vae.VAES lists them
SHAPE = re.compile(r"DiT-(?P<width>\d+)x(?P<depth>\d+)/(?P<patch>\d+)")  # a rung of a ladder
HEAD_WIDTH = 32  # of models named by their shape
EXPERTS = re.compile(r"(?P<dense>.+)-(?P<experts>\d+)E(?P<active>\d+)A")
GONE = re.compile(r"hourglass-\d+")  # backbones of earlier versions


def parse(name: str) -> DiTSize | SplitSize | UNetSize | AddedModel | None:
    """The row of `name`; None for "unet". Raises `UserError` naming the nearest known name, or what
    there is in place of one that is gone."""
    if name == CUSTOM_UNET:
        return None
    for table in (SPLIT, UNET):
        if name in table:
            return table[name]
    if GONE.fullmatch(name):
        raise UserError(
            f"model.name '{name}': this version has no hourglass backbone any more. Train split-32 "
            f"in its place; what was trained as {name} opens with the version of stepsight that "
            f"wrote it."
        )
    mixed = EXPERTS.fullmatch(name)
    dense = mixed["dense"] if mixed else name
    size = _shaped(dense)
    if size is None and dense not in DENSE:
        if name in ADDED:
            return AddedModel(ADDED[name])
        raise UserError(f"model.name '{name}' is unknown.{suggest(name, [*NAMES, *ADDED])}")
    if size is None:
        base, _, patch = dense.partition("/")
        size = DiTSize(*DIT[base], patch=int(patch))
    if mixed is None:
        return size
    experts, active = int(mixed["experts"]), int(mixed["active"])
    if not 1 <= active <= experts:
        raise UserError(f"model.name '{name}': {active} of {experts} experts cannot be active.")
    return replace(size, experts=experts, active=active)


def _shaped(name: str) -> DiTSize | None:
    """The row of a name that says width, blocks and patch; None for other names. Raises `UserError`
    for a shape that no DiT has."""
    match = SHAPE.fullmatch(name)
    if match is None:
        return None
    width, depth, patch = map(int, match.groups())
    if patch not in PATCHES or depth < 1 or width < 4 or width % min(width, HEAD_WIDTH):
        patches = ", ".join(map(str, PATCHES))
        raise UserError(
            f"model.name '{name}': the width must be a multiple of {HEAD_WIDTH}, or less, with at "
            f"least one block and a patch of {patches}, such as DiT-96x4/8."
        )
    return DiTSize(width, depth, max(1, width // HEAD_WIDTH), patch=patch)


def check_sides(size: tuple[int, ...], factor: int, what: str) -> None:
    """Raise UserError unless height and width are positive multiples of `factor`."""
    for name, value in zip(("height", "width"), size, strict=True):
        if value % factor or value < 1:
            low = max(value // factor, 1) * factor
            raise UserError(
                f"{what}: {name} {value} is not a multiple of {factor}, the pixels per cell of "
                f"the VAE. Use {low} or {low + factor}."
            )
