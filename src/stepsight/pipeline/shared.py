"""What draws of the same pictures have in common, done once: the pictures as they are seen, and the
answers to the starts, which walks of any length begin with.

Whoever measures what a setting costs needs to know what it would have taken by itself. So the
seconds of all that is shared are kept, and charged to each draw that uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import torch

Value = TypeVar("Value")


class Took(NamedTuple):
    """Seconds of drawing an ensemble."""

    seeing: float  # the pictures, once for all members
    drawing: float  # all members

    def of(self, share: float) -> float:
        """Of a share of the members: they pass the network one chunk of rows after the other."""
        return self.seeing + self.drawing * share


class Shared:
    """Of one batch and task, for draws that differ in nothing but calls and members.

    Since `begin`: `spent` are the seconds of what was used, by kind, and `lent` those of them that
    an earlier draw had spent.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._made: dict[Hashable, tuple[object, float]] = {}
        self.begin()

    def begin(self) -> None:
        """Charge what follows to another draw."""
        self.spent: dict[str, float] = {}
        self.lent = 0.0

    def once(self, kind: str, what: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, the first time that it is asked for."""
        if (kind, what) in self._made:
            self.lent += self._made[kind, what][1]
        else:
            began = clock(self._device)
            made = make()
            self._made[kind, what] = made, clock(self._device) - began
        value, took = self._made[kind, what]
        self.spent[kind] = self.spent.get(kind, 0.0) + took
        return value  # type: ignore[return-value]


def clock(device: torch.device) -> float:
    """Seconds, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
