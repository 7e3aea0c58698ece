"""Floating-point operations and parameters of the hourglass, in closed form.

Convolutional levels with skips around a transformer at the lowest resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stepsight.scaling.flops.dit import FREQUENCIES
from stepsight.scaling.flops.parts import Cost, attention, conv, linear, norm, table


@dataclass(frozen=True)
class HourglassShape:
    """What the cost of an hourglass depends on."""

    channels: tuple[int, ...]  # a level, full resolution first
    width: int  # of the transformer
    depth: int
    down: tuple[int, ...]  # residual blocks a level on the way down
    up: tuple[int, ...]
    in_channels: int
    out_channels: int
    labels: int = 2  # the null row included
    features: int = 0  # channels that join at half the resolution
    routes: int = 1  # input convolutions, of which each sample passes one

    def macs(self, height: int, width: int) -> int:
        stride = 2 ** len(self.channels)
        assert height % stride == 0 and width % stride == 0, "levels halve the sides evenly"
        return Cost.of(_layers(self, height * width, routes=1)).macs

    def stored(self) -> int:
        return Cost.of(_layers(self, 0, self.routes)).parameters

    def passed(self) -> int:
        return Cost.of(_layers(self, 0, routes=1)).parameters


def _layers(shape: HourglassShape, cells: int, routes: int) -> Iterator[Cost]:
    first, width = shape.channels[0], shape.width
    yield linear(FREQUENCIES, width)
    yield linear(width, width)
    yield table(shape.labels, width)
    yield conv(shape.in_channels, first, 3, cells).stored(routes)
    if shape.features:
        yield conv(shape.features, shape.channels[1], 1, cells // 4)
    for level, (narrow, wide) in enumerate(zip(shape.channels, (*shape.channels[1:], width))):
        here, below = cells // 4**level, cells // 4 ** (level + 1)
        blocks = shape.down[level] + shape.up[level]
        yield from [_residual(narrow, width, here)] * blocks
        yield conv(narrow, wide, 2, below)
        yield conv(wide, 4 * narrow, 1, below)  # and on the way back, before the pixel shuffle
        yield conv(narrow, narrow, 1, here)  # the skip
    yield from [_block(width, cells // 4 ** len(shape.channels))] * shape.depth
    yield norm(first)
    yield conv(first, shape.out_channels, 3, cells)


def _residual(channels: int, embedding: int, cells: int) -> Cost:
    """Two convolutions; the second norm has its scale and shift from the embedding."""
    convolutions = [conv(channels, channels, 3, cells)] * 2
    return Cost.of([norm(channels), *convolutions, linear(embedding, 2 * channels)])


def _block(width: int, tokens: int) -> Cost:
    """The block of a DiT."""
    maps = [linear(width, outputs, tokens) for outputs in (3 * width, width, 4 * width)]
    maps += [linear(4 * width, width, tokens), linear(width, 6 * width)]
    return Cost.of([*maps, attention(width, tokens, tokens)])
