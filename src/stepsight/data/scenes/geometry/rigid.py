"""Rigid motions in exactly rounded arithmetic, so that they are the same bits on every machine.

Angles are half-tangents t = tan(a/2). The rotation about a unit axis with cross-product matrix K
is I + 2/(1+t^2) (t K + t^2 K^2) (Rodrigues' formula; Cayley 1846), which is exactly I at t = 0.
"""

from __future__ import annotations

import numpy as np

X, Y, Z = np.eye(3)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix product "... i j, ... j k -> ... i k", summed in a fixed order (BLAS is not)."""
    terms = [a[..., :, j, None] * b[..., None, j, :] for j in range(3)]
    return terms[0] + terms[1] + terms[2]


def apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Matrix times vector, "... i j, ... j -> ... i"."""
    return product(matrix, vector[..., None])[..., 0]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar product over the last axis."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def transpose(matrix: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrix, -1, -2)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector scaled to length one."""
    return vector / np.sqrt(dot(vector, vector))[..., None]


def turn(axis: np.ndarray, half_tangent: np.ndarray) -> np.ndarray:
    """R - I, "... 3 3", of the rotation about the unit `axis`; exactly zero at zero angle."""
    t = half_tangent[..., None, None]
    x, y, z = axis[..., 0], axis[..., 1], axis[..., 2]
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return 2 / (1 + t * t) * (t * cross + t * t * product(cross, cross))


def rotation(axis: np.ndarray, half_tangent: np.ndarray) -> np.ndarray:
    """The rotation matrix "... 3 3" about the unit `axis`."""
    return np.eye(3) + turn(axis, half_tangent)
