"""Floating-point operations and parameters of a DiT, dense or with experts, in closed form.

The "Gflops" that Peebles & Xie 2023 (arXiv:2212.09748) print are GMACs of this form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stepsight.scaling.flops.accounting import BackboneShape
from stepsight.scaling.flops.parts import LayerCost, attention, conv, linear, table

FREQUENCIES = 256  # width of the sinusoidal embedding of the noise level


@dataclass(frozen=True)
class DiTShape(BackboneShape):
    """What the cost of a DiT (arXiv:2212.09748, adaLN-zero) depends on; dense without experts."""

    width: int
    depth: int
    patch: int = 2
    in_channels: int = 12  # noisy target and condition together
    out_channels: int = 8
    labels: int = 1001  # rows of the label embedding, the null row included
    experts: int = 0  # routed MLPs per block, of which each token passes `active`
    active: int = 0
    shared: int = 0  # MLPs per block that every token passes besides
    routes: int = 1  # patch embeddings, of which each sample passes one

    @property
    def stride(self) -> int:
        return self.patch

    def parts(self, cells: int) -> Iterator[LayerCost]:
        d, tokens = self.width, cells // self.patch**2
        yield self._patches(tokens)
        yield from (linear(FREQUENCIES, d), linear(d, d), table(self.labels, d))
        yield from [self._block(tokens)] * self.depth
        yield linear(d, 2 * d)  # adaLN of the head
        yield linear(d, self.patch**2 * self.out_channels, tokens)

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a working grid of `height` x `width` cells."""
        return height * width // self.patch**2

    def idle(self) -> int:
        mlps = self.experts - self.active if self.experts else 0
        blocks = self.depth * mlps * self._mlp(0).parameters
        return blocks + (self.routes - 1) * self._patches(0).parameters

    def _patches(self, tokens: int) -> LayerCost:
        return conv(self.in_channels, self.width, self.patch, tokens)

    def _block(self, tokens: int) -> LayerCost:
        d = self.width
        maps = [linear(d, 3 * d, tokens), attention(d, tokens, tokens), linear(d, d, tokens)]
        mlps = self.active + self.shared if self.experts else 1
        router = linear(d, self.experts, tokens, bias=False)
        return LayerCost.of([linear(d, 6 * d), *maps, router, *[self._mlp(tokens)] * mlps])

    def _mlp(self, tokens: int) -> LayerCost:
        d = self.width
        return LayerCost.of([linear(d, 4 * d, tokens), linear(4 * d, d, tokens)])
