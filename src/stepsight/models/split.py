"""Encode once, denoise light: a backbone in two halves for pixel space.

The encoder reads the first condition image once and leaves feature maps at 1/2, 1/4 and 1/8 of its
size, which serve all tasks, calls and members. The denoiser is called again and again: it takes the
noisy target, adds what the encoder saw and what the task brings besides (a prompt, a cost volume,
and what it sees anew at every call), and answers. No convolution runs at full resolution: pixels
enter by space-to-depth, as part of the first convolution, and leave by pixel-shuffle.

Normalisation is over the channels of each place, which is fast in channels_last memory and in
bfloat16; attention on a CPU stays in float32, whose backward pass is faster there.

Shapes: b rows, n pictures, c channels of the target, k channels of the condition, f features,
d trunk width; h2 = h/2 and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stepsight.models.config import SplitSize
from stepsight.models.layers import (
    LabelEmbedder,
    Positions,
    TimestepEmbedder,
    modulate,
    zeroed,
)
from stepsight.rowwise import added_rows, picked_rows

Looked = tuple[Tensor, Tensor | None]  # what a call sees anew "m f h2 w2", of which rows


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of "b c h w"."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FoldedConv2d(nn.Conv2d):
    """A convolution of what space-to-depth makes of "b c h w": "b o h2 w2". Weights are laid out
    for the 4 c channels "(c i j)" of the cells, and read as those of a kernel twice as large in
    steps of two pixels, which is the same without the copy."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(4 * inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        kernel = rearrange(self.weight, "o (c i j) y x -> o c (y i) (x j)", i=2, j=2)
        x = input.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, kernel, self.bias, stride=2, padding=2 * self.padding[0])  # type: ignore[operator]


class PlanarConv2d(nn.Conv2d):
    """A 1x1 convolution of maps that come channel by channel, many of them: they are read as they
    lie, and only the answer is brought into channels_last memory."""

    def forward(self, input: Tensor) -> Tensor:
        kernel = self.weight.flatten(1)[..., None, None]  # in channels_last torch would copy input
        out = F.conv2d(input, kernel, self.bias)
        return out.contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; with an embedding, scale and shift between them (adaLN).

    The second convolution starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, embedding: int = 0) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels, elementwise_affine=not embedding)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.modulation = zeroed(nn.Linear(embedding, 2 * channels)) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.modulation is not None and embedding is not None:
            scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
            hidden = torch.addcmul(shift, hidden, 1 + scale)
        return x + self.conv2(F.silu(hidden))


class Block(nn.Module):
    """A pre-norm transformer block with gated residuals; with an embedding, that of DiT (adaLN)."""

    def __init__(self, width: int, heads: int, gate: float, modulated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for module in (self.qkv, self.proj, self.fc1, self.fc2):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        rows = torch.zeros(6, width)  # shift, scale, gate of attention, then of the MLP
        rows[[2, 5]] = gate
        self.modulation = zeroed(nn.Linear(width, 6 * width)) if modulated else None
        self.gates = nn.Parameter(rows.flatten())

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        rows = self.gates[None]
        if self.modulation is not None and embedding is not None:
            rows = rows + self.modulation(embedding)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows.chunk(6, dim=1)
        x = x + gate1[:, None] * self._attend(modulate(self.norm1(x), shift1, scale1))
        hidden = F.gelu(self.fc1(modulate(self.norm2(x), shift2, scale2)), approximate="tanh")
        return x + gate2[:, None] * self.fc2(hidden)

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(
            self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads
        )
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                out = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b heads n d -> b n (heads d)"))


class Encoder(nn.Module):
    """A picture "n p h w" to maps "n c2 h2 w2", "n c4 h4 w4", "n d h8 w8"."""

    def __init__(self, size: SplitSize, picture_channels: int, gate: float) -> None:
        super().__init__()
        half, quarter = size.channels
        self.input = FoldedConv2d(picture_channels, half, 3)
        self.fine = _residuals(half, size.encoder[0])
        self.down4 = nn.Conv2d(half, quarter, 2, stride=2)
        self.middle = _residuals(quarter, size.encoder[1])
        self.down8 = nn.Conv2d(quarter, size.width, 2, stride=2)
        blocks = (Block(size.width, size.heads, gate, False) for _ in range(size.trunk))
        self.trunk, self.positions = nn.ModuleList(blocks), Positions()

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = _through(self.fine, self.input(picture))
        quarter = _through(self.middle, self.down4(half))
        return half, quarter, _attended(self.trunk, self.down8(quarter), places=self.positions)


class Split(nn.Module):
    """(x "b c h w", cond "b k h w", time "b", label "b") -> "b c h w".

    The first channels of the condition are the picture, p = `picture_channels`; what follows are
    further images of the task, which reach rows without features only: features stand for those of
    the others.
    used: for each label row how many of the c channels its task has; the others are not looked at.
    looked_channels: f of what a call sees anew, at half the resolution.
    """

    def __init__(
        self,
        size: SplitSize,
        target_channels: int,
        cond_channels: int,
        labels: int,
        feature_channels: int = 0,
        looked_channels: int = 0,
        picture_channels: int = 3,
        used: Sequence[int] = (),
        gate_init: float = 0.7,
    ) -> None:
        super().__init__()
        (half, quarter), width = size.channels, size.width
        self.stride, self.looks, self.picture = 8, looked_channels > 0, picture_channels
        self.time, self.label = TimestepEmbedder(width), LabelEmbedder(labels, width)
        self.encoder = Encoder(size, picture_channels, gate_init)
        self.input = FoldedConv2d(target_channels, half, 1)
        self.pictured = nn.Conv2d(half, half, 1)
        more = cond_channels - picture_channels
        self.input_images = _maybe(more, lambda: FoldedConv2d(more, half, 3))
        fine = feature_channels
        self.input_features = _maybe(fine, lambda: PlanarConv2d(fine, half, 1))
        self.input_coarse = _maybe(fine, lambda: PlanarConv2d(fine, width, 1))
        self.input_looked = _maybe(looked_channels, lambda: PlanarConv2d(looked_channels, half, 1))
        self.down4 = nn.Conv2d(half, quarter, 2, stride=2)
        self.down8 = nn.Conv2d(quarter, width, 2, stride=2)
        blocks = (Block(width, size.heads, gate_init, True) for _ in range(size.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.up4, self.skip4 = nn.Conv2d(width, 4 * quarter, 1), nn.Conv2d(quarter, quarter, 1)
        self.up2, self.skip2 = nn.Conv2d(quarter, 4 * half, 1), nn.Conv2d(half, half, 1)
        self.middle = _residuals(quarter, size.decoder[1], width)
        self.fine = _residuals(half, size.decoder[0], width)
        self.norm = ChannelNorm(half)
        self.output = zeroed(nn.Conv2d(half, 4 * target_channels, 3, padding=1))
        inside = torch.arange(target_channels) < torch.tensor([*used] or [target_channels])[:, None]
        rows = inside.expand(labels, -1) if len(inside) == 1 else inside
        null = torch.ones(1, target_channels, dtype=torch.bool)
        self.register_buffer("used", torch.cat([rows, null]), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(
        self,
        cond: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        rows: Tensor | None = None,
        pictures: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """What the calls need of the condition: maps "b c2 h2 w2", "b c4 h4 w4", "b d h8 w8".

        features "m f h' w'" are those of the rows `rows` "m" (None: of all). pictures: rows "n"
        whose pictures are read, and which of these each row has, "b"; None: all are read.
        """
        half, quarter, eighth = self._read_once(cond, pictures)
        half = self.pictured(half)
        if self.input_images is not None:
            others = cond[:, self.picture :]
            if features is not None:
                blank = torch.zeros_like(others)
                others = blank if rows is None else others.index_fill(0, rows, 0.0)
            half = half + self.input_images(others)
        if features is not None and self.input_features is not None:
            assert self.input_coarse is not None
            fine = _pooled(features, half)
            half = _added(half, self.input_features(fine), rows)
            eighth = _added(eighth, self.input_coarse(_pooled(fine, eighth)), rows)
        return half, quarter, eighth

    def read(self, cond: Tensor) -> tuple[Tensor, ...]:
        """The part of `encode` that is the same for all tasks of a picture, which is blank where
        there is no condition."""
        blank = max(self.picture - cond.shape[1], 0)
        return self.encoder(F.pad(cond[:, : self.picture], (0, 0, 0, 0, 0, blank)))

    def _read_once(
        self, cond: Tensor, pictures: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, ...]:
        if pictures is None:
            return self.read(cond)
        first, own = pictures
        return tuple(picked_rows(maps, own) for maps in self.read(cond[first]))

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        looked: Looked | None = None,
    ) -> Tensor:
        encoded = self.encode(cond, label, features) if isinstance(cond, Tensor) else cond
        half, quarter, eighth = encoded
        embedding = F.silu(self.time(time) + self.label(label))
        x = torch.where(self.used[label][:, :, None, None], x, 0.0)  # type: ignore[index]
        fine = self.input(x) + half
        if looked is not None and self.input_looked is not None:
            fine = _added(fine, self.input_looked(looked[0]), looked[1])
        middle = self.down4(fine) + quarter
        coarse = _attended(self.blocks, self.down8(middle) + eighth, embedding)
        middle = F.pixel_shuffle(self.up4(coarse), 2) + self.skip4(middle)
        middle = _through(self.middle, middle, embedding)
        fine = F.pixel_shuffle(self.up2(middle), 2) + self.skip2(fine)
        fine = _through(self.fine, fine, embedding)
        return F.pixel_shuffle(self.output(F.silu(self.norm(fine))), 2)


def _maybe(channels: int, make) -> nn.Module | None:  # noqa: ANN001
    return make() if channels > 0 else None


def _residuals(channels: int, count: int, embedding: int = 0) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels, embedding) for _ in range(count))


def _through(blocks: nn.ModuleList, x: Tensor, embedding: Tensor | None = None) -> Tensor:
    for block in blocks:
        x = block(x, embedding)
    return x


def _attended(
    blocks: nn.ModuleList,
    x: Tensor,
    embedding: Tensor | None = None,
    places: Positions | None = None,
) -> Tensor:
    """Blocks over the places of a map "b d h w"."""
    height, width = x.shape[-2:]
    tokens = rearrange(x, "b d h w -> b (h w) d")
    if places is not None:
        tokens = places(tokens, height, width)
    tokens = _through(blocks, tokens, embedding)
    tokens = rearrange(tokens, "b (h w) d -> b d h w", h=height)
    return tokens.contiguous(memory_format=torch.channels_last)


def _pooled(x: Tensor, like: Tensor) -> Tensor:
    """x averaged to the grid of another map."""
    size = (like.shape[-2], like.shape[-1])
    if x.shape[-2:] == size:
        return x
    factor = x.shape[-2] // size[0]
    if x.shape[-2:] == (factor * size[0], factor * size[1]):
        return F.avg_pool2d(x, factor)  # the same, and fast
    return F.adaptive_avg_pool2d(x, size)


def _added(x: Tensor, more: Tensor, rows: Tensor | None) -> Tensor:
    """`more` added to some rows of x."""
    return x + more if rows is None else added_rows(x, more, rows)
