"""Codecs: from images to the space the backbone works in, and back.

Pixels are the codec without loss. A VAE (models/vae.py) has the same members; it is imported when a
folder is named.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.execution.config import Precision
from stepsight.execution.noise import Drawn
from stepsight.models.config import CodecSettings


class CodecShape(Protocol):
    """What a codec does to shapes."""

    @property
    def name(self) -> str:
        """ "pixels", or what the folder holds and a digest of its weights."""
        ...

    @property
    def downsample(self) -> int:
        """Pixels per working cell, along each axis."""
        ...

    def channels(self, channels: int) -> int:
        """Working channels of an image of `channels` channels."""
        ...


class Codec(CodecShape, Protocol):
    """Maps images of any number of channels to working space, deterministically, and back."""

    def drawing(self, noise: Drawn) -> Self:
        """A copy that encodes to draws from its posterior, made of `noise`, where it has one."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Image "b c h w" of about [-1, 1] -> "b channels(c) h/downsample w/downsample"."""
        ...

    def decode(self, z: Tensor, channels: int, clip: bool = False) -> Tensor:
        """The inverse, to an image "b channels h w"; differentiable. clip: what was decoded, to
        [-1, 1], before one channel is read out of several."""
        ...

    def mask(self, valid: Tensor) -> Tensor:
        """Valid pixels "b 1 h w" -> valid cells: a cell counts only if its whole block does."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move to a device; returns itself."""
        ...

    def for_use(self, device: torch.device | str, precision: Precision | None = None) -> Self:
        """Move to a device, to be used alone, in as little memory as that takes, and to compute in
        a precision, where one is given; returns itself."""
        ...

    def save(self, folder: Path) -> None:
        """Write a copy that `open_codec` reads."""
        ...


class Pixels:
    """The identity: targets and images are denoised as they are."""

    downsample = 1
    name = "pixels"

    def channels(self, channels: int) -> int:
        return channels

    def drawing(self, noise: Drawn) -> Self:
        return self

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor, channels: int, clip: bool = False) -> Tensor:
        return z[:, :channels].clamp(-1, 1) if clip else z[:, :channels]

    def mask(self, valid: Tensor) -> Tensor:
        return valid

    def to(self, device: torch.device | str) -> Self:
        return self

    def for_use(self, device: torch.device | str, precision: Precision | None = None) -> Self:
        return self

    def save(self, folder: Path) -> None:
        """Nothing to keep."""


@dataclass(frozen=True)
class Described:
    """The shape of a codec without its weights: enough to say what a run would be."""

    name: str
    downsample: int
    latents: int

    def channels(self, channels: int) -> int:
        return -(-channels // 3) * self.latents


def described_codec(settings: CodecSettings, kept: Path | None = None) -> Pixels | Described:
    """What is known of a codec before its weights are needed; `kept` as in `open_codec`.

    A folder that is not there is taken to be Stable Diffusion's VAE: 4 latents, 8 pixels per cell.
    """
    if not settings.path:
        return Pixels()
    folder = kept if kept is not None and kept.is_dir() else Path(settings.path)
    for file in (folder / "config.json", folder / "vae" / "config.json"):
        if file.is_file():
            try:
                return _described(settings.path, json.loads(file.read_text()))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file} is not the config.json of a VAE ({error!r}).") from None
    return Described(f"{settings.path} (not found: 4 channels, factor 8 assumed)", 8, 4)


def _described(name: str, config: dict[str, Any]) -> Described:
    levels = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return Described(name, 2 ** (len(levels) - 1), int(config["latent_channels"]))


def open_codec(settings: CodecSettings, kept: Path | None = None) -> Codec:
    """The codec of `settings`; `kept` is a folder holding a run's own copy, preferred if there.

    Raises UserError for a folder that is missing or holds no VAE.
    """
    if not settings.path:
        return Pixels()
    from stepsight.models.vae import VAE  # diffusers: only when a VAE is chosen

    folder = kept if kept is not None and kept.is_dir() else Path(settings.path)
    return VAE.open(folder, settings)
