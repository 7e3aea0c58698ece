"""Starts by variable projection: exponents on a grid, the linear parameters by least squares.

For given exponents a sum of powers is linear in its floor and its amplitudes, none of which is
negative, so that only the exponents are searched for (Golub & Pereyra 1973). Residuals are weighed
by 1 / y, which makes them those of log y to first order.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from stepsight.scaling.fitting.form import MAX_LOG, Array

VANISHED = np.log(1e-3)  # where a search begins for a term that the projection left out
RIDGE = 1e-12  # of unit columns: a slope of zero and a floor are one column


def combinations(*axes: Array) -> Array:
    """Every choice of one value an axis, "g e"."""
    return np.array(list(product(*axes)))


def project(log_columns: Array, target: Array, weights: Array) -> Array:
    """Logs of the non-negative coefficients of columns that come nearest to `target`.

    `log_columns` "g n m" for g choices of exponents, `target` and `weights` "n" or "g n" -> "g m".
    A coefficient of zero has the logarithm -inf.
    """
    height = log_columns.max(axis=1, keepdims=True)  # columns of height one do not overflow
    design = np.exp(log_columns - height) * weights[..., None]
    length = np.maximum(np.linalg.norm(design, axis=1, keepdims=True), np.exp(-MAX_LOG))
    coefficients = _non_negative(
        design / length, np.broadcast_to(target * weights, design.shape[:2])
    )
    with np.errstate(divide="ignore"):
        return np.log(coefficients) - np.log(length[:, 0]) - height[:, 0]


def _non_negative(design: Array, target: Array) -> Array:
    """Non-negative least squares of g small problems at once, "g n m" and "g n" -> "g m".

    The solution is the best of the unconstrained ones, over all choices of columns, that have no
    negative entry; for three columns these are seven.
    """
    gram = np.einsum("gni,gnj->gij", design, design) + RIDGE * np.eye(design.shape[2])
    right = np.einsum("gni,gn->gi", design, target)
    best, gain = np.zeros_like(right), np.zeros(len(right))
    for chosen in product((False, True), repeat=design.shape[2]):
        columns = np.flatnonzero(chosen)
        if not len(columns):
            continue
        solution = np.linalg.solve(gram[:, columns[:, None], columns], right[:, columns, None])[
            ..., 0
        ]
        explained = np.sum(solution * right[:, columns], axis=1)
        better = (solution >= 0).all(axis=1) & (explained > gain)
        gain[better] = explained[better]
        best[better] = 0.0
        best[np.ix_(better, columns)] = solution[better]
    return best
