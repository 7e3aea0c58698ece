"""Rows that no law of the others explains, by name, and what the fit is without them.

A robust fit hardly moves for a single row, so that its residual stands out (Rousseeuw & Leroy 1987,
ch. 1). Whether it stands out too far is asked of a fit that has not seen it: by the t test of a
deleted residual, at a level shared among all rows (Bonferroni; Cook & Weisberg 1982, sec. 2.2.2).
The ends of a curve that bends are far from the law as well, but so are their neighbours: a row is
an outlier only if it is far from those too. Outliers are named and kept: a row may be a slip of
the pen, or the beginning of something that the law does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.rows.curve import CurveRows

SUSPECT = 4.0  # deviations from the law, by the median of the others
LEVEL = 0.01  # of the test, for all rows together
APART = 3.0  # times farther from the law than the neighbours
NEIGHBOURS = 2
MOST = 0.2  # share of the rows that are tried: more are no outliers but the scatter
QUIET = 1e-3  # a scatter of logs below which nothing is far


@dataclass(frozen=True)
class Outliers:
    """Rows by place, how far each lies from the law of the others, and that law."""

    places: tuple[int, ...]
    names: tuple[str, ...]
    off: tuple[float, ...]  # y over the law of the others, less one
    without: Fit

    def __str__(self) -> str:
        each = (f"{name} ({off:+.0%})" for name, off in zip(self.names, self.off))
        lie = "lies" if len(self.names) == 1 else "lie"
        return f"{', '.join(each)} {lie} far from the law of all other rows"


def outliers(
    fitted: Fit, rows: CurveRows, refit: Callable[[NDArray[np.bool_]], Fit]
) -> Outliers | None:
    """The outliers among `rows`, which `fitted` went through; None where there are none.

    `refit` fits the same form to the rows where its argument "n" is true.
    """
    off = np.array(fitted.residuals)
    n, k = len(off), len(fitted.params)
    most = max(1, int(MOST * n))
    if n - k < 3:
        return None
    scatter = max(1.4826 * float(np.median(np.abs(off))) * math.sqrt(n / (n - k)), QUIET)
    suspects = np.argsort(-np.abs(off))[:most]
    suspects = suspects[np.abs(off[suspects]) > SUSPECT * scatter]
    if not len(suspects):
        return None
    kept = np.ones(n, dtype=bool)
    kept[suspects] = False
    without = refit(kept)
    if len(without.residuals) - k < 2:
        return None
    law = np.array([without.forecast(row).value for row in rows.table[suspects]])
    deleted = np.log(rows.y[suspects] / law)
    far = _significant(deleted, np.array(without.residuals), k, n)
    far &= _from_neighbours(rows.table, suspects, deleted, kept, np.array(without.residuals))
    if not far.any():
        return None
    if not far.all():
        kept[suspects[~far]] = True
        without = refit(kept)
    order = [int(i) for i in np.argsort(-np.abs(deleted)) if far[i]]
    return Outliers(
        places=tuple(int(suspects[i]) for i in order),
        names=tuple(rows.names[suspects[i]] for i in order),
        off=tuple(float(np.expm1(deleted[i])) for i in order),
        without=without,
    )


def _significant(deleted: Array, left: Array, parameters: int, n: int) -> NDArray[np.bool_]:
    """By the t test of deleted residuals; `left` are the residuals of the fit without them."""
    from scipy.stats import t  # takes a second to load

    spare = len(left) - parameters
    scatter = max(math.sqrt(float(left @ left) / spare), QUIET)
    scatter *= math.sqrt(1 + parameters / len(left))  # of a new point
    return np.abs(deleted) / scatter > t.isf(LEVEL / (2 * n), spare)


def _from_neighbours(
    table: Array, suspects: NDArray[np.intp], deleted: Array, kept: NDArray[np.bool_], left: Array
) -> NDArray[np.bool_]:
    """Whether suspects are farther from the law than the rows next to them."""
    logs = np.log(table)
    logs = logs / np.maximum(np.ptp(logs, axis=0), np.finfo(float).tiny)
    distances = np.linalg.norm(logs[suspects][:, None] - logs[kept], axis=2)
    nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    return np.abs(deleted) > APART * np.abs(left[nearest]).mean(axis=1)
