"""The diffusion transformer of Peebles & Xie 2023 (arXiv:2212.09748), plainly stated, and its step.

Parameters have the published names, so that weights go from one to the other. The step is that of
the paper's training: AdamW as torch has it, and an average updated parameter by parameter. fast-DiT
trains the same network under autocast, with a fused optimizer and an average updated at once.

Shapes: b batch, c channels, n tokens, d width, p patch, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight.models.config import DiTSize

DECAY = 0.9999  # of the average
LR = 1e-4


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = _MLP(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulated(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulated(self.norm2(x), shift2, scale2))


class _Final(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(modulated(self.norm_final(x), *self.adaLN_modulation(c).chunk(2, dim=1)))


class _TimeEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(128, dtype=torch.float32, device=t.device)
        angles = t[:, None].float() * torch.exp(-math.log(10000) * steps / 128)
        return self.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))


class _LabelEmbedder(nn.Module):
    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(labels + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class _PatchEmbedder(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class PlainDiT(nn.Module):
    """(x "b c h w", t "b", y "b") -> "b out h w", on the square grid of `positions` "1 n d"."""

    def __init__(self, size: DiTSize, channels: int, out: int, labels: int, positions: Tensor):
        super().__init__()
        self.patch, self.out = size.patch, out
        self.x_embedder = _PatchEmbedder(channels, size.width, size.patch)
        self.t_embedder = _TimeEmbedder(size.width)
        self.y_embedder = _LabelEmbedder(labels, size.width)
        self.pos_embed = nn.Parameter(positions.clone(), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(size.width, size.heads) for _ in range(size.depth))
        self.final_layer = _Final(size.width, size.patch**2 * out)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        patches = self.final_layer(tokens, c)
        side, p = math.isqrt(tokens.shape[1]), self.patch
        grid = patches.reshape(len(x), side, side, p, p, self.out)
        return torch.einsum("nhwpqc->nchpwq", grid).reshape(len(x), self.out, side * p, side * p)


def plain_step(
    net: nn.Module, loss: Callable[[nn.Module], Tensor], clip: float
) -> Callable[[], None]:
    """A training step as `train.py` of the paper's code takes it, but for the clipping, which all
    sides do: AdamW of torch's defaults, the average one parameter after the other."""
    average = deepcopy(net).requires_grad_(False)
    kept = dict(average.named_parameters())
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0)

    def step() -> None:
        error = loss(net)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        with torch.no_grad():
            for name, p in net.named_parameters():
                kept[name].mul_(DECAY).add_(p.data, alpha=1 - DECAY)

    return step


def fast_step(
    net: nn.Module, loss: Callable[[nn.Module], Tensor], clip: float, device: str
) -> Callable[[], None]:
    """The same step as fast-DiT speeds it up: bfloat16 autocast, a fused optimizer, an average that
    is updated at once."""
    kept = [p.detach().clone() for p in net.parameters()]
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0, fused=True)
    kind = torch.device(device).type

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16):
            error = loss(net)
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        nn.utils.clip_grad_norm_(trained, clip, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(kept, [p.detach() for p in net.parameters()], 1 - DECAY)  # pyright: ignore[reportPrivateImportUsage]

    return step
