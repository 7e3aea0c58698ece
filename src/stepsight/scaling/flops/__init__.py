"""FLOPs and parameters of backbones and autoencoders, in closed form: one file a family.

What is counted is said in `accounting` and `parts`.
"""

from stepsight.scaling.flops.accounting import (
    active_parameters,
    forward_flops,
    forward_macs,
    inference_flops,
    parameters,
    training_flops,
)
from stepsight.scaling.flops.dit import DiTShape
from stepsight.scaling.flops.split import SplitFlops, SplitShape, split_flops
from stepsight.scaling.flops.unet import UNetShape
from stepsight.scaling.flops.vae import (
    KLShape,
    TinyShape,
    autoencoder_parameters,
    decoder_flops,
    encoder_flops,
)

__all__ = [
    "DiTShape",
    "KLShape",
    "SplitFlops",
    "SplitShape",
    "TinyShape",
    "UNetShape",
    "active_parameters",
    "autoencoder_parameters",
    "decoder_flops",
    "encoder_flops",
    "forward_flops",
    "forward_macs",
    "inference_flops",
    "parameters",
    "split_flops",
    "training_flops",
]
