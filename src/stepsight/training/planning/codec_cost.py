"""What a VAE as codec costs a run, in closed form from its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stepsight.config import RunConfig
from stepsight.scaling.flops import (
    KLShape,
    TinyShape,
    autoencoder_parameters,
    decoder_flops,
    encoder_flops,
)

FLOAT = 4  # bytes
STABLE_DIFFUSION = KLShape((128, 256, 512, 512))  # what a folder that is not there is taken for


@dataclass(frozen=True)
class CodecCost:
    """Of one picture of three channels; nothing at all for pixels."""

    shape: KLShape | TinyShape | None

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        if not config.codec.path:
            return cls(None)
        folder = Path(config.codec.path)
        files = (folder / "config.json", folder / "vae" / "config.json")
        found = next((file for file in files if file.is_file()), None)
        return cls(STABLE_DIFFUSION if found is None else _shape(json.loads(found.read_text())))

    @property
    def weights(self) -> int:
        """Bytes."""
        return FLOAT * autoencoder_parameters(self.shape) if self.shape else 0

    def coding(self, size: tuple[int, int]) -> int:
        """Bytes for encoding a picture: three maps of the first level at full resolution."""
        return 3 * FLOAT * self._first * size[0] * size[1] if self.shape else 0

    def encode(self, size: tuple[int, int]) -> int:
        """FLOPs."""
        return encoder_flops(self.shape, *size) if self.shape else 0

    def decode(self, size: tuple[int, int]) -> int:
        """FLOPs."""
        return decoder_flops(self.shape, *size) if self.shape else 0

    @property
    def _first(self) -> int:
        return self.shape.channels[0] if isinstance(self.shape, KLShape) else 64


def _shape(config: dict[str, Any]) -> KLShape | TinyShape:
    if config.get("_class_name") == "AutoencoderTiny":
        down, up = config["num_encoder_blocks"], config["num_decoder_blocks"]
        width = config["encoder_block_out_channels"][0]
        return TinyShape(width, tuple(down), tuple(up), config["latent_channels"])
    return KLShape(
        tuple(config["block_out_channels"]),
        config.get("layers_per_block", 1),
        config["latent_channels"],
        config.get("mid_block_add_attention", True),
        config.get("use_quant_conv", True),
    )
