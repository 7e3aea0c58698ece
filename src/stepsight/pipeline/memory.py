"""When memory runs out in a forward pass: fewer rows at a time, and the same numbers.

Noise is seeded by picture and member and nothing looks at a row's neighbours, so that work which
did not fit is done again in halves. What fits is remembered by what was worked on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from stepsight.errors import UserError

Part = TypeVar("Part")
ALLOCATORS = ("out of memory", "can't allocate memory")  # what those say that raise RuntimeError


class Exhausted(UserError):
    """Not even one row fits into memory."""


class RowLimits:
    """How many rows a forward pass can have, by what it works on. One is shared by all copies of a
    pipeline.

    lost: seconds spent so far on passes that did not fit. say: hears of the first of them.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.lost = 0.0
        self._say = say or (lambda text: print(f"warning: {text}", file=sys.stderr, flush=True))
        self._fitting: dict[Hashable, int] = {}

    def in_parts(
        self, what: Hashable, count: int, rows: int, work: Callable[[range, int], Part]
    ) -> list[Part]:
        """`work(items, rows)` of the items 0 to count - 1 in order, with at most `rows` rows in a
        forward pass: of all at once, and where that does not fit of no more items than rows, which
        are halved until it does.

        Raises `Exhausted` where one does not fit; whatever else `work` raises passes through.
        """
        done, parts = 0, list[Part]()
        while done < count:
            most = self._fitting.get(what)
            items = range(done, count if most is None else min(done + most, count))
            rows = rows if most is None else min(rows, most)
            began = time.perf_counter()
            try:
                parts.append(work(items, rows))
                done = items.stop
                continue
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not is_exhausted(error):
                    raise
                reason = str(error).partition("\n")[0]
            self._retreat(what, rows, reason)  # no frame of what failed holds memory any more
            self.lost += time.perf_counter() - began
        return parts

    def _retreat(self, what: Hashable, rows: int, reason: str) -> None:
        """Half as many rows from now on."""
        if rows == 1:
            raise _exhausted(what, reason)
        if not self._fitting:
            self._say(
                f"memory ran out at {rows} rows in a forward pass of {what}: going on with "
                f"{rows // 2}, and fewer where need be. The numbers stay what they are."
            )
        self._fitting[what] = rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def fitting() -> Iterator[None]:
    """Raises `Exhausted` where memory runs out in what cannot be done in parts."""
    try:
        yield
    except RuntimeError as error:
        if not is_exhausted(error):
            raise
        raise _exhausted("this size", str(error).partition("\n")[0]) from error


def _exhausted(what: Hashable, reason: str) -> Exhausted:
    return Exhausted(
        f"not even one picture of {what} fits into memory ({reason}). Work at a smaller size, or "
        "on a device with more memory."
    )


def is_exhausted(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, on a GPU or in torch's allocator of the CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(word in text for word in ALLOCATORS)
