"""What the colours of a picture stand for, as plain values: what writes pictures states it, what
shows them draws it as a bar, a wheel or a key. Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

VOID = "#d0d0d0"  # of pixels that nothing is known of, in every picture
NUMBERED = "class {}"  # a class whose name is not known


class ClassColour(NamedTuple):
    """A class and its colour, "#rrggbb"."""

    name: str
    colour: str


@dataclass(frozen=True)
class Legend:
    """The colours of a picture, or of several that are meant to be compared.

    kind: "values" runs through `stops` from `low` to `high`, in equal steps of the value or, with
    `log`, of its logarithm; "flow" is a wheel whose `stops` are the hues of directions, evenly
    spaced clockwise from motion to the right, white at rest and full at `high`; "classes" and
    "mask" have one colour each.
    unit: of `low` and `high`, "" where they have none.
    """

    kind: Literal["values", "flow", "classes", "mask"]
    stops: tuple[str, ...] = ()  # "#rrggbb"
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    log: bool = False
    classes: tuple[ClassColour, ...] = ()
    invalid: str = VOID
    invalid_means: str = "no truth"

    def called(self, names: Sequence[str]) -> Legend:
        """The same with the classes that are numbered called by their names."""
        known = {NUMBERED.format(number): name for number, name in enumerate(names)}
        named = (ClassColour(known.get(name, name), colour) for name, colour in self.classes)
        return replace(self, classes=tuple(named))

    def share(self, value: float) -> float:
        """How far along `stops` a value lies, 0 to 1."""
        low, high, value = (
            math.log(max(x, 1e-9)) if self.log else x for x in (self.low, self.high, value)
        )
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends to be written beside a bar, at most so many; the ends
        themselves where fewer than two lie between them."""
        inside = [self.low, self.high]
        for values in self._rounds(most):
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) <= most:
                break
        return inside if len(inside) > 1 else [self.low, self.high]

    def _rounds(self, most: int) -> Iterator[list[float]]:
        """Round values about the range, the closest together first."""
        span = self.high - self.low
        if not span > 0:
            return
        if self.log and self.high > 3 * self.low > 0:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            for digits in ((1, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
                yield [digit * 10.0**decade for decade in decades for digit in digits]
        else:
            finest = math.floor(math.log10(span / most))
            for step in (
                digit * 10.0**power for power in (finest, finest + 1) for digit in (1, 2, 5)
            ):
                first, last = math.ceil(self.low / step), math.floor(self.high / step)
                yield [number * step for number in range(first, last + 1)]
