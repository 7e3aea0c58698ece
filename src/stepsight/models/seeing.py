"""U-Nets for text that are told, in place of a prompt, what CLIP sees in the picture (Liu et al.
2023, Zero-1-to-3, section 3.2).

Shapes: as in `models.unet`.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from stepsight.models.unet import TextUNet
from stepsight.models.vision import ImageEncoder

KEYS = ("vision", "projected", "condition_scale")  # of a configuration, beside diffusers' own


class SeeingUNet(TextUNet):
    """(x "b c h w", cond "b k h w", time "b", label "b") -> "b c h w", of a picture "b 3 h w".

    Cross-attention reads one token, the picture's embedding. Without condition it reads the prompt
    in its place, and zeros in place of the condition images.

    config: that of a `TextUNet`, with `vision`, the arguments of an `ImageEncoder`, `projected`,
    whether the embedding goes through a linear layer, and `condition_scale`, by which condition
    images are multiplied before the first convolution.
    """

    sees_picture = True

    def __init__(
        self, config: dict[str, Any], target_channels: int, cond_channels: int, labels: int
    ) -> None:
        own = {key: config[key] for key in KEYS if key in config}
        rest = {key: value for key, value in config.items() if key not in KEYS}
        super().__init__(rest, target_channels, cond_channels, labels, tokens=1)
        self.further = own
        self.vision = ImageEncoder.of(config["vision"])
        size = config["vision"]["embedding"], self.prompt.shape[-1]
        self.projection = nn.Linear(*size) if config.get("projected") else nn.Identity()
        self.condition_scale = float(config.get("condition_scale", 1.0))

    def encode(
        self,
        cond: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        *_: Tensor | None,
        picture: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The condition, scaled, and the token "b 1 d".

        Rows of the condition are "(p b)" for pictures "b 3 h w".
        """
        assert picture is not None, "it sees the picture"
        (scaled,) = super().encode(cond * self.condition_scale, label, features)
        token = self.projection(self.vision(picture).to(cond.dtype))
        return scaled, repeat(token, "b d -> (p b) 1 d", p=len(cond) // len(picture))

    def unconditional(
        self, encoded: tuple[Tensor, ...], label: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same of no condition: zeros, and the prompt of the null row."""
        cond, token = encoded
        told = self.prompt[-1:].to(token.dtype).expand_as(token)
        return (torch.zeros_like(cond), told), label

    def _conditioning(
        self, label: Tensor, encoded: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        return encoded[1], super()._conditioning(label, encoded)[1]
