"""Floating-point operations and parameters of the split backbone, in closed form.

An encoder reads a picture once, for all tasks, calls and members; a light denoiser is called again
and again. So an answer of `n` calls costs `encode + n call`, and a further task of the same picture
`encode - read` less than it would by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from stepsight.scaling.flops.accounting import FLOPS_PER_MAC, BackboneShape
from stepsight.scaling.flops.dit import FREQUENCIES
from stepsight.scaling.flops.parts import LayerCost, attention, conv, linear, norm, table


@dataclass(frozen=True)
class SplitShape(BackboneShape):
    """What the cost of a split backbone depends on."""

    channels: tuple[int, int]  # at 1/2 and 1/4 of the size
    width: int  # of the transformers at 1/8
    encoder: tuple[int, int]  # residual blocks at 1/2 and 1/4
    trunk: int  # transformer blocks of the encoder
    blocks: int  # and of the denoiser
    decoder: tuple[int, int]  # residual blocks of the denoiser
    target_channels: int
    cond_channels: int = 3  # of the picture, and of what further images a task has
    labels: int = 2  # the null row included
    features: int = 0  # channels that a task brings besides images
    looked: int = 0  # channels that a task sees anew at every call
    picture_channels: int = 3

    @property
    def stride(self) -> int:
        return 8

    def parts(self, cells: int) -> Iterator[LayerCost]:
        """Of a first call, for a task that brings features and looks again if any does."""
        return chain(*_parts(self, cells, True, True))


class SplitFlops(NamedTuple):
    """FLOPs of one sample."""

    read: int  # once a picture, whatever is asked of it
    encode: int  # once a picture and task; `read` included
    call: int  # each model call


def split_flops(
    shape: SplitShape, height: int, width: int, *, features: bool = False, looked: bool = False
) -> SplitFlops:
    """What a task costs on a grid of `height` x `width` pixels, by whether it brings features and
    whether it looks again at every call."""
    assert height % 8 == 0 and width % 8 == 0, "levels halve the sides evenly"
    parts = _parts(shape, height * width, features, looked)
    read, own, call = (FLOPS_PER_MAC * LayerCost.of(part).macs for part in parts)
    return SplitFlops(read, read + own, call)


_Parts = tuple[Iterator[LayerCost], Iterator[LayerCost], Iterator[LayerCost]]


def _parts(shape: SplitShape, cells: int, features: bool, looked: bool) -> _Parts:
    """Layers that read the picture, those that encode the rest, and those of a call."""
    return _read(shape, cells), _own(shape, cells, features), _call(shape, cells, looked)


def _read(shape: SplitShape, cells: int) -> Iterator[LayerCost]:
    (half, quarter), width = shape.channels, shape.width
    yield conv(4 * shape.picture_channels, half, 3, cells // 4)
    yield from [_residual(half, cells // 4)] * shape.encoder[0]
    yield conv(half, quarter, 2, cells // 16)
    yield from [_residual(quarter, cells // 16)] * shape.encoder[1]
    yield conv(quarter, width, 2, cells // 64)
    yield from [_block(width, cells // 64)] * shape.trunk


def _own(shape: SplitShape, cells: int, features: bool) -> Iterator[LayerCost]:
    half = shape.channels[0]
    yield conv(half, half, 1, cells // 4)
    more = shape.cond_channels - shape.picture_channels
    if more > 0:
        yield conv(4 * more, half, 3, cells // 4)
    if features and shape.features:
        yield conv(shape.features, half, 1, cells // 4)
        yield conv(shape.features, shape.width, 1, cells // 64)


def _call(shape: SplitShape, cells: int, looked: bool) -> Iterator[LayerCost]:
    (half, quarter), width = shape.channels, shape.width
    yield linear(FREQUENCIES, width)
    yield linear(width, width)
    yield table(shape.labels, width)
    yield conv(4 * shape.target_channels, half, 1, cells // 4)
    if looked and shape.looked:
        yield conv(shape.looked, half, 1, cells // 4)
    yield conv(half, quarter, 2, cells // 16)
    yield conv(quarter, width, 2, cells // 64)
    yield from [_block(width, cells // 64, modulated=True)] * shape.blocks
    yield conv(width, 4 * quarter, 1, cells // 64)  # before the pixel shuffle
    yield conv(quarter, quarter, 1, cells // 16)  # the skip
    yield from [_residual(quarter, cells // 16, width)] * shape.decoder[1]
    yield conv(quarter, 4 * half, 1, cells // 16)
    yield conv(half, half, 1, cells // 4)
    yield from [_residual(half, cells // 4, width)] * shape.decoder[0]
    yield norm(half)
    yield conv(half, 4 * shape.target_channels, 3, cells // 4)


def _residual(channels: int, cells: int, embedding: int = 0) -> LayerCost:
    """Two convolutions; with an embedding, the second norm has its scale and shift from there."""
    second = linear(embedding, 2 * channels) if embedding else norm(channels)
    return LayerCost.of([norm(channels), *[conv(channels, channels, 3, cells)] * 2, second])


def _block(width: int, tokens: int, modulated: bool = False) -> LayerCost:
    """A transformer block with gates of its own; with an embedding, shifts, scales and gates are
    those of DiT, and the norms have none."""
    maps = [linear(width, outputs, tokens) for outputs in (3 * width, width, 4 * width)]
    maps += [linear(4 * width, width, tokens), attention(width, tokens, tokens), table(6, width)]
    return LayerCost.of([*maps, *([linear(width, 6 * width)] if modulated else [norm(width)] * 2)])
