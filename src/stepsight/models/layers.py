"""Parts that the backbones share: embeddings of time, label and position, and the convolutions
that read target and condition, apart or at once.

Shapes: b batch, c channels, h w grid, n tokens, d width.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

HELD = 16  # tables of positions at a time, by size and device
FREQUENCIES = 256  # size of the sinusoid fed to the time embedder, as in DiT


def sinusoid(time: Tensor, size: int = FREQUENCIES) -> Tensor:
    """time "b" -> "b size": cosines then sines, frequencies 10000^(-j / (size/2)) (DiT's order)."""
    half = size // 2
    frequencies = torch.exp(
        -math.log(10000.0) / half * torch.arange(half, dtype=torch.float32, device=time.device)
    )
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """Diffusion time "b" -> "b d"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        for index in (0, 2):
            nn.init.normal_(self.mlp[index].weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, time: Tensor) -> Tensor:
        return self.mlp(sinusoid(time).to(self.mlp[0].weight.dtype))  # type: ignore[arg-type]


class LabelEmbedder(nn.Module):
    """Task or class rows, plus one null row at the end."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows + 1, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, label: Tensor) -> Tensor:
        return self.embedding_table(label)


class Positions(nn.Module):
    """Tokens "b (h w) d" with their positions added. A table is made on the host, in float64, and
    sent to its device once; a graph, which may be of any size, computes it."""

    def __init__(self, grid: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.grid, self._made = grid, dict[tuple[int, int, torch.device], Tensor]()

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        if torch.compiler.is_exporting():
            return tokens + position_table(height, width, tokens.shape[-1], self.grid).to(tokens)
        key = height, width, tokens.device
        if key not in self._made:
            if len(self._made) == HELD:
                self._made.clear()
            with torch.inference_mode(False):
                table = position_table(height, width, tokens.shape[-1], self.grid)
                self._made[key] = table.to(tokens.device)
        return tokens + self._made[key].to(tokens.dtype)


def position_table(height: int, width: int, dim: int, grid: tuple[int, int] = (0, 0)) -> Tensor:
    """Fixed 2-D sin-cos positions "1 (h w) d" (DiT): the first half of the channels encodes x.

    Inside a half, sines come before cosines; frequencies are 10000^(-j / (d/4)). Positions count
    tokens; with a `grid` (tokens high, wide) that a model was trained at, they are interpolated
    within it, so that cell centres keep their place in the image.
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64, device="cpu") / (dim / 4))

    def encode(positions: Tensor) -> Tensor:
        angles = positions.reshape(-1)[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def places(count: int, trained: int) -> Tensor:
        place = torch.arange(count, dtype=torch.float64, device="cpu")
        return (place + 0.5) * (trained / count) - 0.5 if trained and trained != count else place

    y, x = torch.meshgrid(places(height, grid[0]), places(width, grid[1]), indexing="ij")
    return torch.cat([encode(x), encode(y)], dim=1).float()[None]


def zeroed(module: Module) -> Module:
    """The layer with weight and bias zero, which is how a residual or an output starts."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x "b n d", shift and scale "b d"."""
    return x * (1 + scale[:, None]) + shift[:, None]


class SplitConv2d(nn.Conv2d):
    """A convolution whose input channels may come in parts: their answers add up to the whole's."""

    def part(self, x: Tensor, first: int, bias: bool) -> Tensor:
        """The answer "b o h' w'" to x "b c h w", the input channels from `first` on; where c is 0,
        "b o 1 1"."""
        shift = self.bias if bias else None
        if not x.shape[1]:  # torch's own answer would have no channels either
            zeros = x.new_zeros(len(x), self.out_channels, 1, 1)
            return zeros if shift is None else zeros + shift[:, None, None]
        weight = self.weight[:, first : first + x.shape[1]]
        return F.conv2d(x, weight, shift, self.stride, self.padding)


class RoutedConv2d(nn.Module):
    """One convolution per task, chosen per sample by its label (the paper's PatchEmbedRouter).

    A label without a convolution (the null row) passes zeros, as in the published model.
    """

    def __init__(self, tasks: int, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.tasks = kernel, stride, tasks
        self.weight = nn.Parameter(torch.empty(tasks, outputs, inputs * kernel * kernel))
        self.bias = nn.Parameter(torch.zeros(tasks, outputs))
        nn.init.uniform_(self.weight, -1, 1)
        with torch.no_grad():  # the range of nn.Conv2d's default
            self.weight /= math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.part(x, label, first=0, bias=True)

    def part(self, x: Tensor, label: Tensor, first: int, bias: bool) -> Tensor:
        """As `SplitConv2d.part`, by the convolutions of `label` "b"."""
        known = (label < self.tasks).to(x.dtype)
        row = label.clamp(max=self.tasks - 1).expand(len(x))  # one label may hold for all
        cells = self.kernel**2  # of a channel, side by side in the weight
        weight = self.weight[:, :, first * cells : (first + x.shape[1]) * cells]
        out = torch.bmm(weight[row], self._patches(x))
        out = (out + self.bias[row][:, :, None] if bias else out) * known[:, None, None]
        height = x.shape[-2] // self.stride if x.shape[1] else 1
        return rearrange(out, "b o (h w) -> b o h w", h=height)

    def _patches(self, x: Tensor) -> Tensor:
        """What the kernel sees in each place "b (c k k) n"; where c is 0, "b 0 1"."""
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, 1)
        padding = (self.kernel - self.stride) // 2
        return F.unfold(x, self.kernel, padding=padding, stride=self.stride)
