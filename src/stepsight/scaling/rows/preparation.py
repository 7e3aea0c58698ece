"""What is done to rows before a law is fitted to them."""

from __future__ import annotations

from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.grouping import by_hint, mixed
from stepsight.scaling.rows.repeats import merged
from stepsight.scaling.rows.units import unit_notes


def prepared(rows: CurveRows, independent: bool = False) -> CurveRows:
    """Each measurement once, grouped by what looks like runs unless runs are known or rows are said
    to be `independent`; notes on that, on curves that may be mixed, and on units.

    Scores are turned before (`scores.turned`), runs named before (`grouping.grouped`).
    """
    once = merged(rows)
    if not independent and once.runs is None:
        once = by_hint(once)
    return once.noting(*mixed(once), *unit_notes(once))
