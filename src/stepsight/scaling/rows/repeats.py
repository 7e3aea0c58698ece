"""Rows that say the same, and rows that measured the same.

A row that stands in a table twice, as copied files leave it, is one measurement: counted twice, it
narrows every interval. Several results at one place are replicates, such as seeds, and all count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from stepsight.scaling.rows.curve import CurveRows


def merged(rows: CurveRows) -> CurveRows:
    """Rows of equal inputs, result, run (where runs are known) and text once, the first of each:
    seeds that came to one rounded result are two. Notes name them, and the replicates kept."""
    runs: Sequence[Hashable] = rows.runs or [None] * len(rows.y)
    texts = list(zip(*rows.texts.values())) or [()] * len(rows.y)
    same: dict[Hashable, list[int]] = defaultdict(list)
    for place, (*inputs, result) in enumerate(np.column_stack([rows.table, rows.y]).tolist()):
        same[(*inputs, result, runs[place], texts[place])].append(place)
    repeated = [places for places in same.values() if len(places) > 1]
    kept = np.zeros(len(rows.y), dtype=bool)
    kept[[places[0] for places in same.values()]] = True
    left = rows.only(kept)
    if repeated:
        groups = f", and so for {len(repeated) - 1} others" if len(repeated) > 1 else ""
        left = left.noting(
            f"{rows.called(repeated[0])} are the same measurement, counted once{groups}: "
            f"{len(left.y)} of {len(rows.y)} rows are left"
        )
    return _replicates(left)


def _replicates(rows: CurveRows) -> CurveRows:
    """Noting where one place holds several results of distinct runs or of none."""
    _, place, counts = np.unique(rows.table, axis=0, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        return rows
    first = np.flatnonzero(place.ravel() == several[0]).tolist()
    rows_there = int(counts[several].sum())
    return rows.noting(
        f"{rows_there} rows stand where others do (such as {rows.called(first)}): all are kept, as "
        "replicates of one place"
    )
