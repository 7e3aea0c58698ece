"""Codecs: from images to the space the backbone works in, and back.

Pixels are the codec without loss; a VAE has the same five members.
"""

from __future__ import annotations

from torch import Tensor


class Pixels:
    """The identity: targets and images are denoised as they are."""

    downsample = 1
    name = "pixels"

    def channels(self, channels: int) -> int:
        """Working channels of an image of `channels` channels."""
        return channels

    def encode(self, x: Tensor) -> Tensor:
        """ "b c h w" -> "b c h w"."""
        return x

    def decode(self, x: Tensor) -> Tensor:
        """ "b c h w" -> "b c h w"."""
        return x

    def mask(self, valid: Tensor) -> Tensor:
        """Valid pixels "b 1 h w" -> valid cells: a cell counts only if its whole block does."""
        return valid
