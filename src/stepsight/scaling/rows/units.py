"""Rows of an input in another unit, such as millions of parameters among parameters.

Told from two things at once: the rows lie a wide gap away from all others, and a factor of a
thousand, a million or a thousand millions brings them among the others *and* onto their line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.rows.curve import CurveRows

GAP = np.log(100.0)  # between neighbours along an input; designs step by less
FACTORS = (1e3, 1e6, 1e9)
CLEARER = 10.0  # times less scatter around a power law, once the rows are moved
FEWEST = 5  # rows


def unit_notes(rows: CurveRows) -> list[str]:
    """What looks as if it were in another unit, one sentence an input."""
    usable = np.flatnonzero(rows.usable)
    if len(usable) < FEWEST:
        return []
    logs, v = np.log(rows.table[usable]), np.log(rows.y[usable])
    notes = []
    for column, name in enumerate(rows.x):
        for odd, factor in _moves(logs[:, column]):
            moved = logs.copy()
            moved[odd, column] += np.log(factor)
            if _scatter(moved, v) * CLEARER < _scatter(logs, v):
                odd_rows = rows.called(usable[odd].tolist())
                notes.append(
                    f"{name} of {odd_rows} is {max(factor, 1 / factor):g} times "
                    f"{'below' if factor > 1 else 'above'} what the other rows say: in another "
                    "unit? They are fitted as they stand"
                )
                break
    return notes


def _moves(u: Array) -> list[tuple[NDArray[np.bool_], float]]:
    """Rows, "n", the fewer on one side of a gap, and factors that bring them among the others."""
    places = np.unique(u)
    found = []
    for i in np.flatnonzero(np.diff(places) >= GAP):
        below = u <= places[i]
        odd = below if below.sum() <= len(u) / 2 else ~below
        rest = u[~odd]
        for factor in FACTORS:
            signed = factor if u[odd].max() < rest.min() else 1 / factor
            there = u[odd] + np.log(signed)
            if rest.min() - GAP / 4 <= there.min() and there.max() <= rest.max() + GAP / 4:
                found.append((odd, signed))
    return found


def _scatter(logs: Array, v: Array) -> float:
    """Sum of squares around the best power law of all inputs."""
    design = np.column_stack([np.ones(len(v)), logs])
    return float(np.sum((v - design @ np.linalg.lstsq(design, v)[0]) ** 2))
