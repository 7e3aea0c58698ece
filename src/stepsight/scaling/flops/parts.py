"""What the layers of a network cost: MACs of one sample, and parameters, both from their shapes.

Counted are the products of linear maps, convolutions and attention (scores and weighted sum).
Norms, activations, softmax, additions, pooling, resizing and look-ups cost nothing here; their
parameters count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self


class LayerCost(NamedTuple):
    """Of a layer, or of several."""

    macs: int = 0
    parameters: int = 0

    @classmethod
    def of(cls, costs: Iterable[Self]) -> Self:
        """The sum."""
        macs, parameters = 0, 0
        for cost in costs:
            macs, parameters = macs + cost.macs, parameters + cost.parameters
        return cls(macs, parameters)


def linear(inputs: int, outputs: int, rows: int = 1, bias: bool = True) -> LayerCost:
    """A linear map of `rows` vectors."""
    return LayerCost(rows * inputs * outputs, inputs * outputs + bias * outputs)


def conv(inputs: int, outputs: int, side: int, cells: int, bias: bool = True) -> LayerCost:
    """A convolution of side x side with `cells` cells of output."""
    return linear(inputs * side**2, outputs, cells, bias)


def norm(channels: int) -> LayerCost:
    """Scale and shift a channel."""
    return LayerCost(parameters=2 * channels)


def table(rows: int, width: int) -> LayerCost:
    """Vectors that are looked up."""
    return LayerCost(parameters=rows * width)


def attention(width: int, queries: int, keys: int) -> LayerCost:
    """Scores and weighted sum, whatever the number of heads."""
    return LayerCost(macs=2 * queries * keys * width)


def attention_block(width: int, cells: int) -> LayerCost:
    """diffusers' `Attention` among convolutions: every cell looks at every other."""
    projections = [linear(width, width, cells)] * 4
    return LayerCost.of([norm(width), *projections, attention(width, cells, cells)])


def resnet(inputs: int, outputs: int, cells: int, embedding: int = 0) -> LayerCost:
    """diffusers' `ResnetBlock2D`: two convolutions, told the time where there is an `embedding`."""
    layers = [norm(inputs), conv(inputs, outputs, 3, cells)]
    layers += [norm(outputs), conv(outputs, outputs, 3, cells)]
    if embedding:
        layers.append(linear(embedding, outputs))
    if inputs != outputs:
        layers.append(conv(inputs, outputs, 1, cells))
    return LayerCost.of(layers)
