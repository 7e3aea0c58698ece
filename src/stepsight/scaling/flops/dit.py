"""Floating-point operations and parameters of a DiT, dense or with experts, in closed form.

The "Gflops" that Peebles & Xie 2023 (arXiv:2212.09748) print are GMACs of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

FREQUENCIES = 256  # width of the sinusoidal embedding of the noise level


@dataclass(frozen=True)
class DiTShape:
    """What the cost of a DiT (arXiv:2212.09748, adaLN-zero) depends on; dense without experts."""

    width: int
    depth: int
    patch: int = 2
    in_channels: int = 12  # noisy target and condition together
    out_channels: int = 8
    labels: int = 1001  # rows of the label embedding, the null row included
    experts: int = 0  # routed MLPs a block, of which each token passes `active`
    active: int = 0
    shared: int = 0  # MLPs a block that every token passes besides
    routes: int = 1  # patch embeddings, of which each sample passes one

    @property
    def mlps(self) -> int:
        """MLPs that a block holds."""
        return self.experts + self.shared if self.experts else 1

    @property
    def active_mlps(self) -> int:
        """MLPs that a token passes in a block."""
        return self.active + self.shared if self.experts else 1

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a working grid of `height` x `width` cells."""
        return (height // self.patch) * (width // self.patch)

    def macs(self, height: int, width: int) -> int:
        tokens = self.tokens(height, width)
        return _token_macs(self, tokens) + _attention_macs(self, tokens) + _sample_macs(self)

    def stored(self) -> int:
        return _parameters(self, self.mlps, self.routes)

    def passed(self) -> int:
        return _parameters(self, self.active_mlps, routes=1)


def _parameters(shape: DiTShape, mlps: int, routes: int) -> int:
    d, cell = shape.width, shape.patch**2
    mlp, router = 8 * d**2 + 5 * d, shape.experts * d
    blocks = shape.depth * (10 * d**2 + 10 * d + mlps * mlp + router)
    patch_embedding = routes * (cell * shape.in_channels * d + d)
    level_embedding = FREQUENCIES * d + d**2 + 2 * d
    label_embedding = shape.labels * d
    head = 2 * d**2 + 2 * d + (d + 1) * cell * shape.out_channels
    return blocks + patch_embedding + level_embedding + label_embedding + head


def _token_macs(shape: DiTShape, tokens: int) -> int:
    """Linear maps of every token: qkv and projection 4 d^2, each MLP 8 d^2, router, patches."""
    d = shape.width
    block = (4 + 8 * shape.active_mlps) * d**2 + shape.experts * d
    patches = shape.patch**2 * (shape.in_channels + shape.out_channels) * d
    return tokens * (shape.depth * block + patches)


def _attention_macs(shape: DiTShape, tokens: int) -> int:
    """Scores and weighted sum, each tokens^2 d a block."""
    return 2 * shape.depth * tokens**2 * shape.width


def _sample_macs(shape: DiTShape) -> int:
    """Maps applied once a sample: adaLN of blocks (6 d^2) and head (2 d^2), level embedding."""
    d = shape.width
    return 6 * shape.depth * d**2 + 3 * d**2 + FREQUENCIES * d
