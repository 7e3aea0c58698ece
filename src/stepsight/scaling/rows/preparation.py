"""What is done to rows before a law is fitted to them."""

from __future__ import annotations

from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.grouping import suspicions
from stepsight.scaling.rows.repeats import merged
from stepsight.scaling.rows.units import unit_notes


def prepared(rows: CurveRows, independent: bool = False) -> CurveRows:
    """Each measurement once, and `notes` on repeats, on runs and curves that may be mixed, and on
    units. Scores are turned before (`scores.turned`), runs named before (`grouping.grouped`), or
    rows said to be `independent`."""
    once = merged(rows)
    return once.noting(*suspicions(once, independent), *unit_notes(once))
