"""From the shape of a network to FLOPs: of a model call, of an answer, of a training run.

One convention for the whole project: a multiply-accumulate (MAC) is two FLOPs, and only products of
matrices and convolutions are counted (`parts`), as torch's own counter does. A count is one
sample's; a batch costs as many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from stepsight.scaling.flops.parts import LayerCost

FLOPS_PER_MAC = 2
TRAINING_FORWARDS = 3  # a backward pass costs two forward passes: one for inputs, one for weights


class BackboneShape(ABC):
    """What the cost of a backbone depends on."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Cells of the working grid along a side of the coarsest grid's cell."""

    @abstractmethod
    def parts(self, cells: int) -> Iterator[LayerCost]:
        """What a sample passes on a working grid of `cells` cells, from the input to the output."""

    def idle(self) -> int:
        """Parameters that a token does not pass."""
        return 0

    def macs(self, height: int, width: int) -> int:
        """MACs of a forward pass of one sample on a working grid of `height` x `width` cells."""
        assert height % self.stride == 0 and width % self.stride == 0, "levels divide the sides"
        return LayerCost.of(self.parts(height * width)).macs


def forward_macs(shape: BackboneShape, height: int, width: int) -> int:
    """MACs of one forward pass for one sample on a working grid of `height` x `width` cells."""
    return shape.macs(height, width)


def forward_flops(shape: BackboneShape, height: int, width: int) -> int:
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


def parameters(shape: BackboneShape) -> int:
    """All parameters; tables of positions are fixed and not counted."""
    return active_parameters(shape) + shape.idle()


def active_parameters(shape: BackboneShape) -> int:
    """Parameters without those of experts and input layers that a token does not pass."""
    return LayerCost.of(shape.parts(0)).parameters
