"""The board that all processes read and write: their beats, the fault that ends them, last words.

It is a store of torch's, which the first process or the launcher hosts. Its calls raise
RuntimeError once the host has gone, and never return while the host is stopped: see `quickly`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any, TypeVar

from stepsight.distributed.beats import Beat

HURRY = 5.0  # seconds that a call may take when all is lost but the message
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would steer a terminal

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """Why all processes end."""

    by: int  # rank of the process that says it
    status: int  # exit status of all
    text: str


class Board:
    """What lies under one prefix of a store."""

    def __init__(self, store: Any, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    def beat(self, rank: int, beat: Beat) -> None:
        self.store.set(f"{self.prefix}/beat/{rank}", json.dumps(asdict(beat)))

    def first(self, rank: int) -> dict[int, Beat]:
        """The first process, which may host the board, as another sees it, which waits for it."""
        if rank > 0:
            self.store.wait([f"{self.prefix}/beat/0"])
        return self.beats([0] if rank > 0 else [])

    def beats(self, ranks: Iterable[int]) -> dict[int, Beat]:
        """Those of the processes that have joined."""
        return {rank: Beat(**json.loads(text)) for rank, text in self._all("beat", ranks).items()}

    def claim(self, fault: Fault) -> Fault:
        """The fault that was first, which is this one or another."""
        key = f"{self.prefix}/fault"
        return Fault(**json.loads(self.store.compare_set(key, "", json.dumps(asdict(fault)))))

    def fault(self) -> Fault | None:
        key = f"{self.prefix}/fault"
        return Fault(**json.loads(self.store.get(key))) if self.store.check([key]) else None

    def end(self, rank: int, words: str) -> None:
        """Note that a process ends, and of which error of its own; "": it follows another."""
        self.store.set(f"{self.prefix}/end/{rank}", words)

    def ends(self, ranks: Iterable[int]) -> dict[int, str]:
        return self._all("end", ranks)

    def leave(self, rank: int) -> None:
        """Note that a process reads the board no more."""
        self.store.set(f"{self.prefix}/gone/{rank}", "")

    def gone(self, ranks: Iterable[int]) -> dict[int, str]:
        return self._all("gone", ranks)

    def _all(self, kind: str, ranks: Iterable[int]) -> dict[int, str]:
        keys = {rank: f"{self.prefix}/{kind}/{rank}" for rank in ranks}
        if keys and not self.store.check(list(keys.values())):  # or reading them would wait
            keys = {rank: key for rank, key in keys.items() if self.store.check([key])}
        if not keys:
            return {}
        values = self.store.multi_get(list(keys.values()))
        return {rank: value.decode() for rank, value in zip(keys, values)}


def quickly(call: Callable[[], T], otherwise: T) -> T:
    """What a call of the board gives, or `otherwise` where the board is out of reach."""
    answers: list[T] = []

    def ask() -> None:
        try:
            answers.append(call())
        except RuntimeError:
            pass

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HURRY)
    return answers[0] if answers else otherwise


def say(text: str) -> None:
    """Write to stderr in one piece, since other processes may be writing too."""
    sys.stderr.write(CONTROL.sub("?", text) + "\n")
    sys.stderr.flush()
