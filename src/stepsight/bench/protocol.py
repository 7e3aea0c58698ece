"""Timing sides of the same work against each other.

A contest is a piece of work that several sides do, one of which is the peer that counts as 1. After
a warm-up every round times each side once, forwards and backwards by turns, so that whatever else
the machine does falls on all of them. A ratio is the median over rounds of what the peer took over
what the side took in the same round: more is faster. Its spread is the width of the middle half of
the rounds' ratios, as a share of the ratio.

On a CPU work is timed in CPU seconds of one thread, which other processes hardly disturb; on a GPU
in seconds of a clock read while the device is idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

Work = Callable[[], object]
Clock = Literal["work", "wall"]
Kind = Literal["speed", "memory", "exponent"]
T = TypeVar("T")

OURS = "ours"  # what the names of our sides begin with
RATIOS = {  # what a ratio is of, and whether more is better
    "speed": True,  # the peer's time over the side's
    "memory": False,  # peak bytes over the peer's
    "exponent": False,  # of the size that the time grows with
}


@dataclass(frozen=True)
class Row:
    """A side of a contest: milliseconds over the rounds, and how it stands to the peer."""

    case: str
    side: str
    peer: str  # whose ratio is 1
    ratio: float
    spread: float = 0.0  # of the ratio, as a share of it
    kind: Kind = "speed"
    reference: float | None = None  # the ratio that is wanted, or that a closed form gives
    ms: tuple[float, float, float] | None = None  # median, least, most


@dataclass(frozen=True)
class Contest:
    """Sides of the same work; their outputs have been compared by whoever made it."""

    case: str
    sides: Mapping[str, Work]
    peer: str
    references: Mapping[str, float] = field(default_factory=dict)  # by side
    clock: Clock = "work"  # wall: where waiting counts
    rounds: int | None = None  # None: the setup's
    warm: int = 5  # rounds ahead that are not timed, at most
    after: Work = lambda: None  # done, untimed, after each turn


@dataclass(frozen=True)
class Setup:
    """Where benches run, and at what size. rounds: 0 stands for those of the size."""

    device: str = "cpu"
    tiny: bool = False
    rounds: int = 0

    @property
    def size(self) -> str:
        return "tiny" if self.tiny else "gpu" if self.on_gpu else "cpu"

    @property
    def on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def pick(self, tiny: T, cpu: T, gpu: T) -> T:
        """What goes with the size."""
        return {"tiny": tiny, "cpu": cpu, "gpu": gpu}[self.size]

    def timed(self, contest: Contest) -> list[Row]:
        """The rows of a contest; at tiny sizes no ratio is expected."""
        return rows_of(contest, self.seconds(contest), expected=not self.tiny)

    def seconds(self, contest: Contest) -> dict[str, list[float]]:
        """What each side took, round by round."""
        rounds = 1 if self.tiny else self.rounds or contest.rounds or self.pick(1, 7, 20)
        clock = time.perf_counter if self.on_gpu or contest.clock == "wall" else time.process_time
        warm = min(contest.warm, self.pick(0, 1, 5))
        return in_turns(contest, rounds, warm, clock, self.device)


def in_turns(
    contest: Contest, rounds: int, warm: int, clock: Callable[[], float], device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each side in every round after `warm` ones."""
    took: dict[str, list[float]] = {name: [] for name in contest.sides}
    for turn in range(warm + rounds):
        for name in [*contest.sides][:: -1 if turn % 2 else 1]:
            seconds = seconds_of(contest.sides[name], clock, device)
            contest.after()
            if turn >= warm:
                took[name].append(seconds)
    return took


def seconds_of(work: Work, clock: Callable[[], float], device: str = "cpu") -> float:
    """What `work` takes once, the device idle before and after."""
    idle(device)
    began = clock()
    work()
    idle(device)
    return clock() - began


def idle(device: str) -> None:
    """Wait until a device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def rows_of(contest: Contest, took: Mapping[str, list[float]], expected: bool = True) -> list[Row]:
    """Rows from the seconds of each side, the peer's among them; with what is expected of them."""
    rows = []
    for side, seconds in took.items():
        ratios = [peer / own for peer, own in zip(took[contest.peer], seconds)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        ms = 1e3 * median(seconds), 1e3 * min(seconds), 1e3 * max(seconds)
        spread = (high - low) / middle
        reference = contest.references.get(side) if expected else None
        rows.append(Row(contest.case, side, contest.peer, middle, spread, "speed", reference, ms))
    return rows


def assert_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """That two outputs agree: the norm of their difference, relative to that of `wanted`.

    Raises AssertionError, which ends a bench: unequal work is not compared.
    """
    found, wanted = (x.detach().double() for x in (found, wanted))
    error, size = float((found - wanted).norm()), float(wanted.norm())
    assert error <= tolerance * size, f"{what} differ by {error:.1e} of {size:.1e}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Work on the CPU is done by one thread while the block lasts: CPU seconds of several hold what
    they spend waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
