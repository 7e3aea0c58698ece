"""Where rays from a common origin enter the unit shapes.

Distances along a ray are measured by their inverse, w = 1/t for the point origin + t direction, so
that a miss is a plain number (not positive) and the nearest hit the largest. What depends on the
origin alone is prepared once per object: a ray then costs some thirty additions, products and one
root, each exactly rounded, hence the same bits for any batch, image size or device.

A convex shape is an intersection of slabs and quadrics. A ray is inside each of them for w in one
interval (far, near), so it is inside the shape for w between the largest far and the smallest near.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.kinds import CAP, QUADRIC

HUGE = 1e9  # beyond every inverse distance


def slab(place: np.ndarray, limit: np.ndarray | float) -> np.ndarray:
    """Constants "4 p" of the slab |y| <= limit for origins with y = place.

    For the y-part d of the direction, near = d c0 + c1 and far = max(d c2, d c3).
    """
    above, below = 1 / (limit - place), 1 / (-limit - place)
    outside = np.abs(place) > limit
    entry, leave = np.where(place > 0, above, below), np.where(place > 0, below, above)
    return np.stack(
        [
            np.where(outside, entry, 0),
            np.where(outside, 0, HUGE),
            np.where(outside, leave, above),
            np.where(outside, leave, below),
        ]
    )


def round_constants(kind: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Constants "12 p" of round shapes of the given kinds "p" for local ray origins "p 3".

    With the quadric Q, w solves Q(origin) w^2 + 2 b w + a = 0. From inside Q the ray leaves it
    (a cylinder seen from above its cap), or, in the other nappe of a cone, may come to enter it.
    """
    (a, b, c), (x, y, z) = QUADRIC[kind].T, origin.T
    value = x * x + z * z + (a * y + b) * y + c
    apex = -b / np.where(a < 0, 2 * a, -1)
    beyond = (a < 0) & ((y < apex) == (apex < 0))
    near = np.where((value < 0) & ~beyond, HUGE, 0)
    far = np.where((value < 0) & beyond, -HUGE, 0)
    quadric = np.stack([a, x, a * y + b / 2, z, value, 1 / value, near, far])
    return np.concatenate([quadric, slab(y, CAP[kind])])


def enter_round(constants: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Inverse distance of entry for directions "p h w"; not positive where the ray misses."""
    flat, gx, gy, gz, value, inverse, near_add, far_add, c0, c1, c2, c3 = constants
    a = x * x
    a.add_(z * z).add_((y * flat).mul_(y))
    b = x * gx
    b.add_(y * gy).add_(z * gz)
    root = (b * b).sub_(a.mul_(value)).relu_().sqrt_()  # zero where missed: then near = far
    near = (root - b).mul_(inverse).add_(near_add)
    far = b.add_(root).neg_().mul_(inverse).add_(far_add)
    near = torch.minimum(near, (y * c0).add_(c1), out=near)
    far = _latest(far, y, c2, c3)
    return _entry(near, far)


def block_constants(kind: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Constants "12 p" of the unit cube for local ray origins "p 3"; all blocks are alike."""
    return np.concatenate([slab(place, 1.0) for place in origin.T])


def enter_block(constants: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """As `enter_round`, for the cube."""
    near = (x * constants[0]).add_(constants[1])
    far = torch.maximum(x * constants[2], x * constants[3])
    for part, (c0, c1, c2, c3) in ((y, constants[4:8]), (z, constants[8:])):
        near = torch.minimum(near, (part * c0).add_(c1), out=near)
        far = _latest(far, part, c2, c3)
    return _entry(near, far)


def _latest(far: Tensor, part: Tensor, c2: Tensor, c3: Tensor) -> Tensor:
    far = torch.maximum(far, part * c2, out=far)
    return torch.maximum(far, part * c3, out=far)


def _entry(near: Tensor, far: Tensor) -> Tensor:
    """near where near > far, else something not positive."""
    margin = far.neg_().add_(near).mul_(HUGE)
    return torch.minimum(near, margin, out=near)
