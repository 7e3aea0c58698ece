"""DiT: the diffusion transformer with adaLN-Zero (Peebles & Xie 2023), for any grid.

Parameter names follow the published checkpoints. The clean condition images enter as extra
input channels of the patch embedding, as in "Scaling Properties of Diffusion Models for Perceptual
Tasks"; since it is linear, their share is computed once and added to that of any target. For sizes
with experts, a mixture of them takes the place of every MLP.

Shapes: b batch, c channels of the target, k channels of the condition, n tokens, d width, p patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Attention, Mlp  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from stepsight.models.config import DiTSize
from stepsight.models.layers import (
    LabelEmbedder,
    Positions,
    RoutedConv2d,
    SplitConv2d,
    TimestepEmbedder,
    modulate,
    zeroed,
)
from stepsight.models.moe import MoE


def tanh_gelu() -> nn.GELU:
    return nn.GELU(approximate="tanh")


def xavier(module: nn.Module) -> None:
    """How DiT starts a linear layer: Xavier uniform, bias zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class DiTBlock(nn.Module):
    """Attention and MLP (or experts), each modulated by and gated with the embedding (adaLN)."""

    def __init__(
        self,
        size: DiTSize,
        gate_init: float,
        qk_norm: bool,
        expert_weights: str = "softmax",
        shared_experts: int = 0,
    ) -> None:
        super().__init__()
        width = size.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(
            width, num_heads=size.heads, qkv_bias=True, qk_norm=qk_norm, norm_layer=nn.LayerNorm
        ).apply(xavier)
        self.mixed = size.experts > 0
        if self.mixed:
            renormalise = expert_weights == "renormalised"
            self.moe = MoE(width, size.experts, size.active, shared_experts, renormalise)
        else:
            mlp = Mlp(width, hidden_features=4 * width, act_layer=tanh_gelu)  # type: ignore[arg-type]
            self.mlp = mlp.apply(xavier)
        modulation = zeroed(nn.Linear(width, 6 * width))
        with torch.no_grad():  # rows: shift, scale, gate of attention, then of the MLP
            modulation.bias.view(6, width)[[2, 5]] = gate_init
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x: Tensor, embedding: Tensor, rows: Tensor | None = None) -> Tensor:
        """rows: "b 6d", what `adaLN_modulation` makes of the embedding, where that is known."""
        made: Tensor = self.adaLN_modulation(embedding) if rows is None else rows
        shift1, scale1, gate1, shift2, scale2, gate2 = made.chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        feed_forward = self.moe if self.mixed else self.mlp
        return x + gate2[:, None] * feed_forward(modulate(self.norm2(x), shift2, scale2))


class PatchEmbed(nn.Module):
    """Patches to tokens; `proj` is one convolution, or one per task."""

    def __init__(self, size: DiTSize, inputs: int, labels: int, routed: bool) -> None:
        super().__init__()
        self.proj = (
            RoutedConv2d(labels, inputs, size.width, kernel=size.patch, stride=size.patch)
            if routed
            else SplitConv2d(inputs, size.width, size.patch, stride=size.patch)
        )

    def forward(self, x: Tensor, label: Tensor, first: int, bias: bool) -> Tensor:
        """What x "b c h w", the input channels from `first` on, adds to the tokens "b n d"; n is 1
        where c is 0."""
        if isinstance(self.proj, RoutedConv2d):
            part = self.proj.part(x, label, first, bias)
        else:
            part = self.proj.part(x, first, bias)
        return rearrange(part, "b d h w -> b (h w) d")


class FinalLayer(nn.Module):
    """Modulated normalisation and a linear map to patches; starts at zero."""

    def __init__(self, size: DiTSize, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(size.width, elementwise_affine=False, eps=1e-6)
        self.linear = zeroed(nn.Linear(size.width, size.patch**2 * channels))
        modulation = zeroed(nn.Linear(size.width, 2 * size.width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x: Tensor, embedding: Tensor, rows: Tensor | None = None) -> Tensor:
        made: Tensor = self.adaLN_modulation(embedding) if rows is None else rows
        shift, scale = made.chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    """(x "b c h w", cond "b k h w", time "b", label "b", features "b f h' w'") -> "b c h w".

    In place of a condition with its features it takes `encode`'s answer, which serves any number
    of calls.
    k may be 0. With `learned_variance` the output is "b 2c h w": the prediction, then what the
    published DiTs predict of the variance.
    expert_weights: "softmax", or "renormalised" to sum to one over the chosen experts.
    shared_experts: experts per block that every token passes; only for sizes with experts.
    position_grid: see `layers.position_table`.
    """

    def __init__(
        self,
        size: DiTSize,
        target_channels: int,
        cond_channels: int,
        labels: int,
        feature_channels: int = 0,
        routed: bool = False,
        gate_init: float = 0.0,
        qk_norm: bool = False,
        learned_variance: bool = False,
        expert_weights: str = "softmax",
        shared_experts: int = 0,
        position_grid: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.stride, self.position_grid = size.patch, position_grid
        self.positions, self.target_channels = Positions(position_grid), target_channels
        self.x_embedder = PatchEmbed(size, target_channels + cond_channels, labels, routed)
        self.features = nn.Conv2d(feature_channels, size.width, 1) if feature_channels else None
        self.t_embedder = TimestepEmbedder(size.width)
        self.y_embedder = LabelEmbedder(labels, size.width)
        self.blocks = nn.ModuleList(
            DiTBlock(size, gate_init, qk_norm, expert_weights, shared_experts)
            for _ in range(size.depth)
        )
        self.final_layer = FinalLayer(size, target_channels * (2 if learned_variance else 1))

    def encode(
        self,
        cond: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        rows: Tensor | None = None,
        *_: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """What the condition alone adds to the tokens, positions included: ("b n d",).

        features: "m f h' w'" of the samples `rows` "m", of all of them if None. What follows is not
        read; it is for backbones that look at a picture once for several samples.
        """
        height, width = (side // self.stride for side in cond.shape[-2:])
        tokens = self.x_embedder(cond, label, first=self.target_channels, bias=True)
        tokens = self.positions(tokens, height, width)
        if features is None or self.features is None:
            return (tokens,)
        seen = self.features(F.adaptive_avg_pool2d(features, (height, width)))
        seen = rearrange(seen, "m d h w -> m (h w) d").to(tokens.dtype)
        return (tokens + seen if rows is None else tokens.index_add(0, rows, seen),)

    def tabulated(self, time: Tensor, label: Tensor) -> Sequence[Sequence[Tensor]]:
        """For each of the times "n" what all modulations make of it, first block first, "1 ...": a
        walk asks the same of every row, so that a third of the weights are read once for all steps.
        `label` is "1"."""
        embedding = self.t_embedder(time) + self.y_embedder(label)
        layers = [*self.blocks, self.final_layer]
        every = [layer.adaLN_modulation(embedding) for layer in layers]  # type: ignore[operator]
        return [[rows[step : step + 1] for rows in every] for step in range(len(time))]

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        looked: Tensor | None = None,
        table: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """table: of this time and label, from `tabulated`."""
        assert looked is None, "a DiT does not look at the images again"
        encoded = self.encode(cond, label, features) if isinstance(cond, Tensor) else cond
        tokens = self.x_embedder(x, label, first=0, bias=False)
        tokens = tokens + encoded[0].to(tokens.dtype)
        embedding = self.t_embedder(time) + self.y_embedder(label) if table is None else time
        rows = table or [None] * (len(self.blocks) + 1)
        for block, known in zip(self.blocks, rows):
            tokens = block(tokens, embedding, known)
        out = self.final_layer(tokens, embedding, rows[-1])
        p = self.stride
        return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", h=x.shape[-2] // p, p=p, q=p)
