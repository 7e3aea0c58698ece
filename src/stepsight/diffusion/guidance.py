"""Classifier-free guidance (Ho & Salimans 2022, eq. 6): an answer is moved away from that without
its label.

With scale w the network counts as having answered u + w (c - u), for c with and u without the label
(w is 1 + their w): 1 is off, 0 leaves the label out. As x0, eps and v are affine in one another at
given x_t, and the weights of c and u add up to 1, guiding x0 guides each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepsight.diffusion.trajectory import Denoise


def guided(labelled: Denoise, unlabelled: Denoise, scale: float, channels: int = 0) -> Denoise:
    """One `denoise` of two, both of which it calls.

    channels: how many are guided, from the first on; 0: all of x. The others, and what else is
    answered below x0, are those of `labelled`. DiT's published sampling guides three of its four
    latent channels.
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        count = channels or x.shape[1]
        c, u = labelled(x, t), unlabelled(x, t)[:, :count]
        return torch.cat([u + scale * (c[:, :count] - u), c[:, count:]], dim=1)

    return denoise
