"""What the verbs of `stepsight data` print: ranges of truth in words, and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepsight.data.plausible.ranges import Range

SHARES = {"labels": "labelled", "instances": "in instances", "hidden": "in the object"}


def ranges_text(ranges: Mapping[str, Range]) -> str:
    """`depth 1.55 to 6.47 m, 98.32% valid; ...`."""
    return "; ".join(_range_text(name, values) for name, values in ranges.items())


def _range_text(name: str, values: Range) -> str:
    if not values.valid:
        return f"{name} nowhere valid"
    if name == "hidden":
        low, high = f"{values.low:.0%}", f"{values.high:.0%}"
        return f"hidden {low if low == high else f'{low} to {high}'} of the object"
    from stepsight.data.fields import table  # torch: only where there is something to say

    unit = table()[name].unit if name in table() else ""
    share = f"{values.valid:.2%} {SHARES.get(name, 'valid')}"
    return f"{name} {values.low:.4g} to {values.high:.4g}{unit and ' ' + unit}, {share}"


def progress(what: str) -> Callable[[int, int], None]:
    """A line on a terminal that counts up; silent where nobody is watching."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{what} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return show
