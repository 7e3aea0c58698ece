"""Hourglass DiT for pixel space: convolutional levels with skips around a transformer trunk.

The transformer sees 1/8 of the resolution, where attention is cheap; the convolutional levels bring
it there and back, so that the output has no patch edges. Levels halve the grid by a 2x2 convolution
of stride 2, and return by a 1x1 convolution and pixel-shuffle, with additive skips.

Shapes: b batch, c channels of the target, k channels of the condition, f features, d trunk width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stepsight.models.config import HourglassSize
from stepsight.models.layers import (
    LabelEmbedder,
    RoutedConv2d,
    TimestepEmbedder,
    modulate,
    position_table,
)

GROUP = 12  # channels a normalisation group, at most


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    groups = max(1, channels // GROUP)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, affine=affine)


class ResidualConv(nn.Module):
    """Two 3x3 convolutions with adaptive group normalisation (scale and shift from the embedding).

    The second convolution starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels, affine=False)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        for module in (self.conv2, self.modulation):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = torch.addcmul(shift, self.norm2(hidden), 1 + scale)
        return x + self.conv2(F.silu(hidden))


class Block(nn.Module):
    """The adaLN transformer block of DiT. Written on torch alone: the default run starts without
    timm, whose import takes longer than the first training steps."""

    def __init__(self, width: int, heads: int, gate_init: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        for module in (self.qkv, self.proj, self.fc1, self.fc2):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():  # rows: shift, scale, gate of attention, then of the MLP
            self.modulation.bias.view(6, width)[[2, 5]] = gate_init

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding).chunk(6, dim=1)
        q, k, v = rearrange(
            self.qkv(modulate(self.norm1(x), shift1, scale1)),
            "b n (three heads d) -> three b heads n d",
            three=3,
            heads=self.heads,
        )
        heads = F.scaled_dot_product_attention(q, k, v)
        x = x + gate1[:, None] * self.proj(rearrange(heads, "b heads n d -> b n (heads d)"))
        hidden = F.gelu(self.fc1(modulate(self.norm2(x), shift2, scale2)), approximate="tanh")
        return x + gate2[:, None] * self.fc2(hidden)


class Hourglass(nn.Module):
    """(x "b c h w", cond "b k h w", time "b", label "b", features "b f h' w'") -> "b c h w".

    Features are pooled to half the resolution and join there.
    """

    def __init__(
        self,
        size: HourglassSize,
        target_channels: int,
        cond_channels: int,
        labels: int,
        feature_channels: int = 0,
        routed: bool = False,
        gate_init: float = 0.7,
    ) -> None:
        super().__init__()
        channels, width = size.channels, size.width
        self.stride = 2 ** len(channels)
        inputs = target_channels + cond_channels
        self.time = TimestepEmbedder(width)
        self.label = LabelEmbedder(labels, width)
        self.input = (
            RoutedConv2d(labels, inputs, channels[0], kernel=3, stride=1)
            if routed
            else nn.Conv2d(inputs, channels[0], 3, padding=1)
        )
        self.features = nn.Conv2d(feature_channels, channels[1], 1) if feature_channels else None
        wider = (*channels[1:], width)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(channels, wider))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(channels, wider))
        self.skip = nn.ModuleList(nn.Conv2d(a, a, 1) for a in channels)
        self.encoder = _levels(channels, size.down, width)
        self.decoder = _levels(channels, size.up, width)
        self.blocks = nn.ModuleList(Block(width, size.heads, gate_init) for _ in range(size.depth))
        self.norm = group_norm(channels[0])
        self.output = nn.Conv2d(channels[0], target_channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features: Tensor | None = None
    ) -> Tensor:
        embedding = F.silu(self.time(time) + self.label(label))
        x = torch.cat([x, cond], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.input(x, label) if isinstance(self.input, RoutedConv2d) else self.input(x)
        skips = []
        for level, down in enumerate(self.down):
            if level == 1 and features is not None and self.features is not None:
                x = x + self.features(F.adaptive_avg_pool2d(features, x.shape[-2:]))
            for block in self.encoder[level]:  # type: ignore[union-attr]
                x = block(x, embedding)
            skips.append(x)
            x = down(x)
        x = self._trunk(x, embedding)
        for level in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.up[level](x), 2) + self.skip[level](skips[level])
            for block in self.decoder[level]:  # type: ignore[union-attr]
                x = block(x, embedding)
        return self.output(F.silu(self.norm(x)))

    def _trunk(self, x: Tensor, embedding: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = rearrange(x, "b d h w -> b (h w) d")
        tokens = tokens + position_table(height, width, tokens.shape[-1], x.device).to(x.dtype)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        tokens = rearrange(tokens, "b (h w) d -> b d h w", h=height)
        return tokens.contiguous(memory_format=torch.channels_last)


def _levels(channels: tuple[int, ...], counts: tuple[int, ...], width: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleList(ResidualConv(c, width) for _ in range(n)) for c, n in zip(channels, counts)
    )
