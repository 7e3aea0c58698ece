"""The image planes of a batch of cameras: which ray each pixel looks along.

Whatever is linear along the rays of a pinhole camera is a function of the column plus a function of
the line, so most of the work of casting camera rays is a single addition per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.parameters import World


@dataclass
class Plane:
    """The pixel grid of `b` cameras: pixel (u, v) looks along (x, y, 1) in camera axes."""

    columns: np.ndarray  # x, "b w"
    lines: np.ndarray  # y, "b h"
    focal: np.ndarray  # pixels, "b"
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(
        cls, world: World, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> Plane:
        height, width = size
        focal = world.camera.focal * width
        columns = (np.arange(width) - (width - 1) / 2) / focal[:, None]
        lines = (np.arange(height) - (height - 1) / 2) / focal[:, None]
        return cls(columns, lines, focal, device, dtype)

    def put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, self.dtype)

    @property
    def x(self) -> Tensor:
        """ "b 1 w"."""
        return self.put(self.columns)[:, None]

    @property
    def y(self) -> Tensor:
        """ "b h 1"."""
        return self.put(self.lines)[:, :, None]

    def spread(self, forms: np.ndarray, scenes: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Linear forms "p n 3" over the rays as columns "n p 1 w" and lines "n p h 1", to add."""
        turned = forms.swapaxes(0, 1)[..., None]
        columns = turned[:, :, 0] * self.columns[scenes] + turned[:, :, 2]
        lines = turned[:, :, 1] * self.lines[scenes]
        return self.put(columns)[:, :, None], self.put(lines)[..., None]
