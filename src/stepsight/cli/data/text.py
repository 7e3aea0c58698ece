"""Ranges of truth in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepsight.data.check import Range

UNITS = {"depth": " m", "flow": " px"}
SHARES = {"labels": "labelled", "instances": "in instances", "hidden": "in the object"}


def ranges_text(ranges: Mapping[str, Range]) -> str:
    """`depth 1.55 to 6.47 m, 98.32% valid; ...`."""
    return "; ".join(_one(name, found) for name, found in ranges.items())


def _one(name: str, found: Range) -> str:
    share = f"{found.valid:.2%} {SHARES.get(name, 'valid')}"
    if not found.valid:
        return f"{name} nowhere valid"
    if name == "hidden":
        low, high = f"{found.low:.0%}", f"{found.high:.0%}"
        return f"hidden {low if low == high else f'{low} to {high}'} of the object"
    return f"{name} {found.low:.4g} to {found.high:.4g}{UNITS.get(name, '')}, {share}"
