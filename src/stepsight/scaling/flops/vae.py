"""Floating-point operations and parameters of diffusers' autoencoders, in closed form.

A count is that of one RGB picture. An image of c channels is shown as ceil(c / 3) pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from stepsight.scaling.flops.accounting import FLOPS_PER_MAC
from stepsight.scaling.flops.parts import LayerCost, attention_block, conv, norm, resnet

RGB = 3


class AutoencoderShape(Protocol):
    """What the cost of an autoencoder depends on; every level but the first halves the sides."""

    @property
    def levels(self) -> int: ...

    def encoder(self, cells: int) -> Iterator[LayerCost]:
        """The layers for a picture of `cells` pixels."""
        ...

    def decoder(self, cells: int) -> Iterator[LayerCost]:
        """The layers for a picture of `cells` pixels."""
        ...


@dataclass(frozen=True)
class KLShape:
    """An `AutoencoderKL`, such as that of Stable Diffusion (arXiv:2112.10752)."""

    channels: tuple[int, ...]  # a level, full resolution first
    layers: int = 2  # residual blocks a level of the encoder; the decoder has one more
    latents: int = 4
    attention: bool = True  # at the lowest level
    quantised: bool = True  # 1x1 convolutions on both sides of the latent

    @property
    def levels(self) -> int:
        return len(self.channels)

    def encoder(self, cells: int) -> Iterator[LayerCost]:
        inputs, moments = self.channels[0], 2 * self.latents
        yield conv(RGB, inputs, 3, cells)
        for level, outputs in enumerate(self.channels):
            for _ in range(self.layers):
                yield resnet(inputs, outputs, cells)
                inputs = outputs
            if level < self.levels - 1:
                cells //= 4
                yield conv(outputs, outputs, 3, cells)
        yield from self._middle(cells)
        yield norm(inputs)
        yield conv(inputs, moments, 3, cells)
        if self.quantised:
            yield conv(moments, moments, 1, cells)

    def decoder(self, cells: int) -> Iterator[LayerCost]:
        inputs, cells = self.channels[-1], cells // 4 ** (self.levels - 1)
        if self.quantised:
            yield conv(self.latents, self.latents, 1, cells)
        yield conv(self.latents, inputs, 3, cells)
        yield from self._middle(cells)
        for level, outputs in reversed(list(enumerate(self.channels))):
            for _ in range(self.layers + 1):
                yield resnet(inputs, outputs, cells)
                inputs = outputs
            if level:
                cells *= 4
                yield conv(outputs, outputs, 3, cells)
        yield norm(inputs)
        yield conv(inputs, RGB, 3, cells)

    def _middle(self, cells: int) -> Iterator[LayerCost]:
        width = self.channels[-1]
        yield from [resnet(width, width, cells)] * 2
        if self.attention:
            yield attention_block(width, cells)


@dataclass(frozen=True)
class TinyShape:
    """An `AutoencoderTiny` (TAESD), of one width throughout."""

    width: int = 64
    down: tuple[int, ...] = (1, 3, 3, 3)  # residual blocks a level, full resolution first
    up: tuple[int, ...] = (3, 3, 3, 1)  # lowest resolution first
    latents: int = 4

    @property
    def levels(self) -> int:
        return len(self.down)

    def encoder(self, cells: int) -> Iterator[LayerCost]:
        yield conv(RGB, self.width, 3, cells)
        for level, blocks in enumerate(self.down):
            if level:
                cells //= 4
                yield conv(self.width, self.width, 3, cells, bias=False)
            yield from [conv(self.width, self.width, 3, cells)] * (3 * blocks)
        yield conv(self.width, self.latents, 3, cells)

    def decoder(self, cells: int) -> Iterator[LayerCost]:
        cells //= 4 ** (self.levels - 1)
        yield conv(self.latents, self.width, 3, cells)
        for level, blocks in enumerate(self.up):
            if level:
                cells *= 4
                yield conv(self.width, self.width, 3, cells, bias=False)
            yield from [conv(self.width, self.width, 3, cells)] * (3 * blocks)
        yield conv(self.width, RGB, 3, cells)


def encoder_flops(shape: AutoencoderShape, height: int, width: int) -> int:
    """FLOPs of encoding one picture of `height` x `width` pixels."""
    return FLOPS_PER_MAC * LayerCost.of(shape.encoder(_pixels(shape, height, width))).macs


def decoder_flops(shape: AutoencoderShape, height: int, width: int) -> int:
    """FLOPs of decoding one picture of `height` x `width` pixels."""
    return FLOPS_PER_MAC * LayerCost.of(shape.decoder(_pixels(shape, height, width))).macs


def autoencoder_parameters(shape: AutoencoderShape) -> int:
    """Parameters of encoder and decoder."""
    return LayerCost.of([*shape.encoder(0), *shape.decoder(0)]).parameters


def _pixels(shape: AutoencoderShape, height: int, width: int) -> int:
    stride = 2 ** (shape.levels - 1)
    assert height % stride == 0 and width % stride == 0, "levels halve the sides evenly"
    return height * width
