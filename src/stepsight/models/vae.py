"""A VAE as codec: images and targets are denoised as its latents (Rombach et al. 2022).

The autoencoders are diffusers' own, read from a local folder in their layout; nothing is ever
looked up elsewhere. A VAE knows RGB images, so an image of any number of channels is shown to it as
`pictures`: one channel is repeated three times and read back as the mean, more are padded with
zeros to a multiple of three, and each group of three is one picture. Latents stand side by side.

Shapes: b images, c their channels, g = ceil(c / 3) pictures per image, l latent channels.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny  # pyright: ignore[reportPrivateImportUsage]
from einops import rearrange, repeat
from torch import Tensor

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.execution.config import Precision
from stepsight.execution.noise import Drawn
from stepsight.execution.precision import computing, lowered, resolved
from stepsight.models.config import CodecSettings, check_sides

Autoencoder = AutoencoderKL | AutoencoderTiny
CLASSES: dict[str, type[AutoencoderKL] | type[AutoencoderTiny]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
}
CONFIG = "config.json"
DOUBLED = 2  # sides, by each level of a decoder
WRITTEN_BY_TINY = "block_out_channels"  # a copy of its decoder's, no argument
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")  # as preferred

# Sizes that can be trained here: arguments of AutoencoderKL. Without attention, a VAE trained at
# one size serves every size.
VAES: dict[str, dict[str, Any]] = {
    "vae-tiny": dict(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )
}


def build_vae(name: str) -> AutoencoderKL:
    """An untrained VAE of a size in `VAES`. Raises UserError for another name."""
    if name not in VAES:
        raise UserError(f"model.name '{name}' is no VAE.{suggest(name, VAES)}")
    return AutoencoderKL(**VAES[name])


class VAE:
    """An autoencoder with fixed weights behind the `Codec` protocol.

    A latent is (posterior mean - shift) * scale, with both from the VAE's configuration; an
    AutoencoderTiny has no posterior. Encoding is deterministic, but for `drawing`, and keeps no
    gradient; decoding is differentiable in the latent. Tensors that are returned are float32
    whatever the VAE computes in: weights stay float32, and less is autocast.
    """

    def __init__(self, module: Autoencoder, settings: CodecSettings) -> None:
        """Take over `module`: it is frozen. Raises UserError for a VAE of other than RGB images."""
        config: Any = module.config
        _check(config, settings)
        self.downsample = _downsample(config)
        self.latent_channels = int(config.latent_channels)
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.name = f"{type(module).__name__}-{_digest(module, self.scale, self.shift)}"
        self._asked = settings.precision
        self._noise: Drawn | None = None
        self._module = module.float().eval().requires_grad_(False)
        self._memory = settings.memory
        if settings.memory == "auto":
            self._module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._module.use_slicing, self._module.use_tiling = settings.slicing, settings.tiling

    @classmethod
    def from_module(cls, module: Autoencoder, settings: CodecSettings) -> Self:
        """The codec of an autoencoder as it is now; `module` itself is left free to train on."""
        return cls(copy.deepcopy(module), settings)

    @classmethod
    def open(cls, folder: Path, settings: CodecSettings) -> Self:
        """Read `folder`, or `folder`/vae where a whole pipeline is named.

        Raises UserError for a folder that is missing, incomplete, damaged or of another class.
        """
        return cls(_read(_locate(Path(folder))), settings)

    def save(self, folder: Path) -> None:
        """Write config.json and safetensors: `open` and diffusers' `from_pretrained` read them."""
        assert all(p.dtype == torch.float32 for p in self._module.parameters()), "cast for use"
        module = copy.deepcopy(self._module)
        module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        module.register_to_config(_name_or_path=self.name)  # not the folder it was once read from
        module.save_pretrained(folder)

    def drawing(self, noise: Drawn) -> Self:
        """A copy whose latents are (mean + deviation noise - shift) * scale, where there is a
        posterior."""
        other = copy.copy(self)
        other._noise = noise
        return other

    def channels(self, channels: int) -> int:
        """Latent channels "g l" of an image of `channels` channels."""
        return _groups(channels) * self.latent_channels

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Image "b c h w" of about [-1, 1] -> latent "b (g l) h/downsample w/downsample".

        Of sides that are no multiples of `downsample` the rest is seen, but has no cell of its own.
        """
        with self._precision(x):
            pictures = to_pictures(x.float())
            if self._memory == "channels_last":
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            encoded: Any = self._module.encode(pictures)

        def rows(latents: Tensor) -> Tensor:
            return rearrange(latents.float(), "(b g) l h w -> b (g l) h w", b=len(x))

        if isinstance(self._module, AutoencoderTiny):
            latents = rows(encoded.latents)
        else:
            latents = rows(encoded.latent_dist.mean)
            if self._noise is not None:
                noise = self._noise(latents.shape[1:]).to(latents)
                latents = latents + rows(encoded.latent_dist.std) * noise
        return (latents - self.shift) * self.scale

    def decode(self, z: Tensor, channels: int, clip: bool = False) -> Tensor:
        """Latent "b k h w", of which the leading channels(channels) are read, to an image
        "b channels (h downsample) (w downsample)". clip: its pictures, to [-1, 1]."""
        z = z[:, : self.channels(channels)].float() / self.scale + self.shift
        latents = rearrange(z, "b (g l) h w -> (b g) l h w", l=self.latent_channels)
        with self._precision(z):
            pictures = self._module.decode(latents).sample.float()  # type: ignore[union-attr]
        return from_pictures(pictures.clamp(-1, 1) if clip else pictures, channels)

    def mask(self, valid: Tensor) -> Tensor:
        """Valid pixels "b 1 h w" -> bool "b 1 h/downsample w/downsample": whole blocks only."""
        check_sides(valid.shape[-2:], self.downsample, "mask")
        side = self.downsample
        blocks = rearrange(valid.bool(), "b c (h i) (w j) -> b c h w (i j)", i=side, j=side)
        return blocks.all(dim=-1)

    @property
    def module(self) -> Autoencoder:
        """The autoencoder itself."""
        return self._module

    def for_use(self, device: torch.device | str, precision: Precision | None = None) -> Self:
        """On a device, its weights cast once to what it computes in: the same answers from half the
        memory. What is left of them cannot be saved."""
        self._asked = precision or self._asked
        lowered(self.to(device)._module, resolved(self._asked, device))
        return self

    def to(self, device: torch.device | str) -> Self:
        self._module.to(device)  # pyright: ignore[reportArgumentType]
        return self

    def _precision(self, x: Tensor) -> AbstractContextManager[None]:
        return computing(x.device, resolved(self._asked, x.device))


def to_pictures(x: Tensor) -> Tensor:
    """Image "b c h w" -> pictures "(b g) 3 h w": see the head of this module."""
    if x.shape[1] == 1:
        return repeat(x, "b 1 h w -> b 3 h w")
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % 3))
    return rearrange(x, "b (g c) h w -> (b g) c h w", c=3)


def from_pictures(pictures: Tensor, channels: int) -> Tensor:
    """The inverse of `to_pictures`, to "b channels h w"."""
    x = rearrange(pictures, "(b g) c h w -> b (g c) h w", g=_groups(channels))
    return x.mean(dim=1, keepdim=True) if channels == 1 else x[:, :channels]


def _groups(channels: int) -> int:
    return math.ceil(channels / 3)


def _downsample(config: Any) -> int:
    """Pixels per cell: every level but the first halves the sides, in both classes."""
    return 2 ** (len(config.block_out_channels) - 1)


def _digest(module: Autoencoder, *numbers: float) -> str:
    """12 hex digits of what decides a latent: the weights, in any file format, and `numbers`."""
    digest = hashlib.sha256(repr(numbers).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.float().contiguous().cpu().numpy())
    return digest.hexdigest()[:12]


def _check(config: Any, settings: CodecSettings) -> None:
    """Raise UserError for an autoencoder, or a use of it, that is not implemented."""
    if (config.in_channels, config.out_channels) != (3, 3):
        raise UserError(
            f"codec.path: this VAE maps {config.in_channels} channels to {config.out_channels}; "
            f"use one of RGB images."
        )
    if getattr(config, "latents_mean", None) or getattr(config, "latents_std", None):
        raise UserError(
            "codec.path: this VAE scales each latent channel by itself (latents_mean, latents_std "
            "in its config.json); use one with a single scaling_factor."
        )
    if config.get("upsampling_scaling_factor", DOUBLED) != DOUBLED:
        raise UserError(
            f"codec.path: this VAE's decoder multiplies sides by {config.upsampling_scaling_factor}"
            f" at each level (upsampling_scaling_factor in its config.json), its encoder halves "
            f"them; use one that doubles them."
        )
    published = (_downsample(config), config.latent_channels) == (8, 4)
    if settings.tiling and "latent_magnitude" in config and not published:
        raise UserError(
            "codec.tiling: diffusers tiles an AutoencoderTiny only with 4 latent channels and 8 "
            "pixels per cell. Set codec.tiling to false; codec.slicing also saves memory."
        )


def _locate(folder: Path) -> Path:
    """The folder itself, or its `vae`, whichever holds a config.json."""
    for candidate in (folder, folder / "vae"):
        if (candidate / CONFIG).is_file():
            return candidate
    reason = f"has no {CONFIG}" if folder.is_dir() else "is no folder"
    raise UserError(f"codec.path: {folder} {reason}. {_CONTENTS}")


def _read(folder: Path) -> Autoencoder:
    """The autoencoder in `folder`, every weight of it from the file."""
    config = _config(folder / CONFIG)
    kind: Any = CLASSES.get(name := config.get("_class_name") or "")
    if kind is None:
        raise UserError(f"{folder / CONFIG}: '_class_name' is {name!r}. {_CONTENTS}")
    _check_keys(config, kind, folder / CONFIG)
    file = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if file is None:
        raise UserError(f"codec.path: {folder} has no {WEIGHTS[0]}. {_CONTENTS}")
    try:
        module, info = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=file.suffix == ".safetensors",
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{file}: cannot be read as {name} ({reason}).") from error
    for fault in ("missing", "unexpected"):
        if keys := info[f"{fault}_keys"]:
            raise DataFormatError(
                f"{file}: does not fit {CONFIG}: {len(keys)} {fault} weights, e.g. {min(keys)}."
            )
    return module


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFormatError(f"{path}: no valid JSON ({error}).") from error
    return config if isinstance(config, dict) else {}


def _check_keys(config: dict[str, Any], kind: type[Autoencoder], path: Path) -> None:
    """Refuse keys that diffusers would pass over with a line in its log. Of those that it knows,
    `force_upcast` changes nothing in float32, and `_check` refuses some."""
    known = {*inspect.signature(kind.__init__).parameters, WRITTEN_BY_TINY}
    for key, value in config.items():
        if key not in known and not key.startswith("_"):
            raise UserError(
                f"{path}: {key} is {value!r}, which means nothing to an {kind.__name__}. Remove it "
                f"if it changes nothing."
            )


_CONTENTS = (
    f"A VAE folder holds {CONFIG} (of a diffusers {' or '.join(CLASSES)}) and {WEIGHTS[0]} "
    f"(or .bin); a folder with such a folder called vae in it will do."
)
