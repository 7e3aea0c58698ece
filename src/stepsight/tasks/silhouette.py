"""The mask of an object in a picture that shows it alone on white."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stepsight.colours import colour_image

Background = Literal["threshold", "border"]


def silhouette(picture: Tensor, threshold: int, background: Background) -> Tensor:
    """Where an RGB picture "b 3 h w" in [-1, 1] is not background, bool "b 1 h w".

    White is every pixel whose channels all reach `threshold` (0 to 255, after rounding to 8 bits).
    Background is what is white ("threshold"), or only the white that is connected with the edge of
    the picture, so that an object may have white parts ("border").
    """
    white = (colour_image(picture) >= threshold).all(dim=1)
    if background == "border":
        white = _reaching_the_edge(white)
    return ~white[:, None]


def _reaching_the_edge(mask: Tensor) -> Tensor:
    """The regions of each mask, bool "b h w", that touch the edge of the image. Pixels of a region
    share sides, not corners only."""
    from scipy import ndimage  # slow to import, needed for this rule alone

    neighbours = ndimage.generate_binary_structure(3, 1)
    neighbours[[0, 2]] = False  # images of a batch are no neighbours
    regions = np.empty(mask.shape, dtype=np.int32)  # numbered through the batch; 0: not in the mask
    ndimage.label(mask.cpu().numpy(), neighbours, output=regions)
    edge = np.ones(regions.shape[1:], dtype=bool)
    edge[1:-1, 1:-1] = False
    outside = np.isin(regions, regions[:, edge]) & (regions > 0)
    return torch.from_numpy(outside).to(mask.device)
