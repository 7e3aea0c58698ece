"""Exact optical flow between the two frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.cast import Hits
from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.views import Motion
from stepsight.data.scenes.shading import gather


@dataclass
class Landing:
    """Where the points seen in a frame are in the other."""

    flow: Tensor  # "b 2 h w" pixels, u right, v down
    x: Tensor  # "b h w", ray (x, y, 1) of the other camera
    y: Tensor
    inverse: Tensor  # "b h w" inverse depth there
    valid: Tensor  # bool "b h w", in front of the other camera


def land(motion: Motion, plane: Plane, hits: Hits) -> Landing:
    """Move the points seen. A point d / w moves by (turn d + shift w) / w, exact also at w = 0."""
    tables = {
        "turn": np.moveaxis(motion.turn, (2, 3), (0, 1)).reshape(9, *motion.shift.shape[:2]),
        "shift": np.moveaxis(motion.shift, -1, 0),
    }
    moved = gather(tables, plane, hits.owner)
    x, y, w, m = plane.x, plane.y, hits.inverse, moved["turn"]
    dx, dy, dz = (
        (m[3 * i] * x).add_(m[3 * i + 1] * y).add_(m[3 * i + 2]).add_(moved["shift"][i].mul_(w))
        for i in range(3)
    )
    scale = (dz + 1).reciprocal_()
    dx.sub_(dz * x).mul_(scale)
    dy.sub_(dz * y).mul_(scale)
    focal = plane.put(plane.focal)[:, None, None]
    return Landing(
        flow=torch.stack([dx * focal, dy * focal], dim=1),
        x=dx.add_(x),
        y=dy.add_(y),
        inverse=w * scale,
        valid=dz > -0.95,
    )
