"""From the shape of a network to FLOPs: of a model call, of an answer, of a training run.

One convention for the whole project: a multiply-accumulate (MAC) is two FLOPs, and only products of
matrices and convolutions are counted (`parts`), as torch's own counter does. A count is one
sample's; a batch costs as many.
"""

from __future__ import annotations

from typing import Protocol

FLOPS_PER_MAC = 2
TRAINING_FORWARDS = 3  # a backward pass costs two forward passes: one for inputs, one for weights


class Shape(Protocol):
    """What the cost of a backbone depends on."""

    def macs(self, height: int, width: int) -> int:
        """MACs of a forward pass of one sample on a working grid of `height` x `width` cells."""
        ...

    def stored(self) -> int:
        """Parameters."""
        ...

    def passed(self) -> int:
        """Parameters that a token passes."""
        ...


def forward_macs(shape: Shape, height: int, width: int) -> int:
    """MACs of one forward pass for one sample on a working grid of `height` x `width` cells."""
    return shape.macs(height, width)


def forward_flops(shape: Shape, height: int, width: int) -> int:
    """FLOPs of one forward pass for one sample; one model call (NFE) of one member."""
    return FLOPS_PER_MAC * shape.macs(height, width)


def training_flops(forward: float, images: int) -> float:
    """FLOPs of training on `images` samples, each costing `forward` FLOPs in the forward pass.

    Work that an implementation repeats (recomputed activations or attention scores) is not model
    work and is not counted.
    """
    return TRAINING_FORWARDS * forward * images


def inference_flops(forward: float, nfe: int, members: int) -> float:
    """FLOPs of one answer: `members` samples of `nfe` model calls, each costing `forward` FLOPs."""
    return forward * nfe * members


def parameters(shape: Shape) -> int:
    """All parameters; tables of positions are fixed and not counted."""
    return shape.stored()


def active_parameters(shape: Shape) -> int:
    """Parameters without those of experts and input layers that a token does not pass."""
    return shape.passed()
