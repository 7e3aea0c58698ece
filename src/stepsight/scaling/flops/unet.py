"""Floating-point operations and parameters of diffusers' U-Nets, in closed form.

Two families, as the published configurations set them up: with cross-attention to a text (Stable
Diffusion, arXiv:2112.10752; `UNet2DConditionModel`), and with a class label (`UNet2DModel`). A time
embedding four times as wide as the first level reaches every residual block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stepsight.scaling.flops.accounting import BackboneShape
from stepsight.scaling.flops.parts import (
    LayerCost,
    attention,
    attention_block,
    conv,
    linear,
    norm,
    resnet,
    table,
)


@dataclass(frozen=True)
class UNetShape(BackboneShape):
    """What the cost of a U-Net depends on. The number of heads does not matter."""

    channels: tuple[int, ...]  # a level, full resolution first
    attention: tuple[bool, ...]  # a level; the middle always has it
    in_channels: int
    out_channels: int
    layers: int = 2  # residual blocks a level on the way down; one more on the way up
    labels: int = 2  # label rows, or stored prompts, the null row included
    text: tuple[int, int] | None = None  # tokens and width of a prompt; None: labels instead

    @property
    def stride(self) -> int:
        return 2 ** (len(self.channels) - 1)

    def parts(self, cells: int) -> Iterator[LayerCost]:
        return _layers(self, cells)


def _layers(shape: UNetShape, cells: int) -> Iterator[LayerCost]:
    """From the input to the output, on a grid of `cells` cells."""
    first, last = shape.channels[0], shape.channels[-1]
    embedding = 4 * first
    yield linear(first, embedding)
    yield linear(embedding, embedding)
    yield table(shape.labels, shape.text[0] * shape.text[1] if shape.text else embedding)
    yield conv(shape.in_channels, first, 3, cells)
    yield from _down(shape, cells, embedding)
    lowest = _level(cells, len(shape.channels) - 1)
    yield from [resnet(last, last, lowest, embedding)] * 2
    yield _attend(shape, last, lowest)
    yield from _up(shape, cells, embedding)
    yield norm(first)
    yield conv(first, shape.out_channels, 3, cells)


def _down(shape: UNetShape, cells: int, embedding: int) -> Iterator[LayerCost]:
    inputs, lowest = shape.channels[0], len(shape.channels) - 1
    for level, outputs in enumerate(shape.channels):
        here = _level(cells, level)
        for _ in range(shape.layers):
            yield resnet(inputs, outputs, here, embedding)
            inputs = outputs
            if shape.attention[level]:
                yield _attend(shape, outputs, here)
        if level < lowest:
            yield conv(outputs, outputs, 3, _level(cells, level + 1))


def _up(shape: UNetShape, cells: int, embedding: int) -> Iterator[LayerCost]:
    """Each residual block also reads what one of the way down, or a level's input, has left."""
    inputs = shape.channels[-1]
    for level in reversed(range(len(shape.channels))):
        outputs, here = shape.channels[level], _level(cells, level)
        left = [outputs] * shape.layers + [shape.channels[max(level - 1, 0)]]
        for skip in left:
            yield resnet(inputs + skip, outputs, here, embedding)
            inputs = outputs
            if shape.attention[level]:
                yield _attend(shape, outputs, here)
        if level:
            yield conv(outputs, outputs, 3, _level(cells, level - 1))


def _level(cells: int, level: int) -> int:
    return cells // 4**level


def _attend(shape: UNetShape, width: int, cells: int) -> LayerCost:
    return _transformer(width, cells, *shape.text) if shape.text else attention_block(width, cells)


def _transformer(width: int, cells: int, tokens: int, text_width: int) -> LayerCost:
    """Self-attention, attention to the text and a gated MLP (GEGLU), between two projections."""
    ends = [norm(width), *[linear(width, width, cells)] * 2]
    norms = [norm(width)] * 3
    to_cells = [linear(width, width, cells, bias=False)] * 3  # query, key, value
    to_text = [linear(text_width, width, tokens, bias=False)] * 2  # key, value
    query = linear(width, width, cells, bias=False)
    joins = [linear(width, width, cells)] * 2
    products = [attention(width, cells, cells), attention(width, cells, tokens)]
    mlp = [linear(width, 8 * width, cells), linear(4 * width, width, cells)]
    return LayerCost.of([*ends, *norms, *to_cells, query, *to_text, *joins, *products, *mlp])
