"""Floating-point operations and parameters of a DiT, in closed form.

One convention for the whole project: a multiply-accumulate (MAC) is two FLOPs, and only matrix
products are counted. Norms, activations, softmax and additions are left out, as in the counts
printed by Peebles & Xie 2023 (arXiv:2212.09748), whose "Gflops" are GMACs.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOPS_PER_MAC = 2
TRAINING_FORWARDS = 3  # a backward pass costs two forward passes: one for inputs, one for weights
FREQUENCIES = 256  # width of the sinusoidal embedding of the noise level


@dataclass(frozen=True)
class DiTShape:
    """What the cost of a dense DiT (arXiv:2212.09748, adaLN-zero) depends on."""

    width: int
    depth: int
    patch: int = 2
    in_channels: int = 12  # noisy target and condition together
    out_channels: int = 8
    labels: int = 1001  # rows of the label embedding, the null row included

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a working grid of `height` x `width` cells."""
        return (height // self.patch) * (width // self.patch)


def forward_macs(shape: DiTShape, height: int, width: int) -> int:
    """MACs of one forward pass for one sample on a working grid of `height` x `width` cells."""
    tokens = shape.tokens(height, width)
    return _token_macs(shape, tokens) + _attention_macs(shape, tokens) + _sample_macs(shape)


def forward_flops(shape: DiTShape, height: int, width: int) -> int:
    """FLOPs of one forward pass for one sample; one model call (NFE) of one member."""
    return FLOPS_PER_MAC * forward_macs(shape, height, width)


def training_flops(forward: float, images: int) -> float:
    """FLOPs of training on `images` samples, each costing `forward` FLOPs in the forward pass.

    Work that an implementation repeats (recomputed activations or attention scores) is not model
    work and is not counted.
    """
    return TRAINING_FORWARDS * forward * images


def inference_flops(forward: float, nfe: int, members: int) -> float:
    """FLOPs of one answer: `members` samples of `nfe` model calls, each costing `forward` FLOPs."""
    return forward * nfe * members


def parameters(shape: DiTShape) -> int:
    """Trainable parameters; the sinusoidal position table is fixed and not counted."""
    d, cell = shape.width, shape.patch**2
    blocks = shape.depth * (18 * d**2 + 15 * d)
    patch_embedding = cell * shape.in_channels * d + d
    level_embedding = FREQUENCIES * d + d**2 + 2 * d
    label_embedding = shape.labels * d
    head = 2 * d**2 + 2 * d + (d + 1) * cell * shape.out_channels
    return blocks + patch_embedding + level_embedding + label_embedding + head


def _token_macs(shape: DiTShape, tokens: int) -> int:
    """Linear maps applied to every token: qkv and projection 4 d^2, MLP 8 d^2, patches in, out."""
    cell = shape.patch**2 * (shape.in_channels + shape.out_channels)
    return tokens * (12 * shape.depth * shape.width**2 + cell * shape.width)


def _attention_macs(shape: DiTShape, tokens: int) -> int:
    """Scores and weighted sum, each tokens^2 d a block."""
    return 2 * shape.depth * tokens**2 * shape.width


def _sample_macs(shape: DiTShape) -> int:
    """Maps applied once a sample: adaLN of blocks (6 d^2) and head (2 d^2), level embedding."""
    d = shape.width
    return 6 * shape.depth * d**2 + 3 * d**2 + FREQUENCIES * d
