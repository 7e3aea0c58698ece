"""The medoid: the member that is nearest to all the others.

It is one of the samples, sharp and consistent in itself, where a mean may be a blend of answers
that exclude each other.
"""

from __future__ import annotations

import torch
from torch import Tensor


def medoid(members: Tensor) -> Tensor:
    """The most central of the members "e b ..." for each image, "b ...", by Euclidean distance."""
    return pick(members, most_central(members))


def most_central(members: Tensor, norm: float = 2.0) -> Tensor:
    """Which of the members "e b ..." has the least sum of distances to the others, int64 "b".

    norm: of the difference of two members over a whole image; 0 counts the entries that differ.
    Ties, as between two members, go to the first.
    """
    flat = members.flatten(2).movedim(0, 1)
    # Not by way of a matrix product, which would cancel between members that nearly agree.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(flat, flat, p=norm, compute_mode=mode).sum(dim=2).argmin(dim=1)


def pick(members: Tensor, index: Tensor) -> Tensor:
    """Member index[b] of the members "e b ..." for each image, "b ..."."""
    return members[index, torch.arange(len(index), device=index.device)]
