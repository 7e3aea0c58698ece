"""What a process says of itself: what it does, since when, and how long that may take."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from stepsight import signals
from stepsight.distributed import place
from stepsight.errors import UserError

SETUP = 12 * 3600.0  # seconds without progress: data sets are read and coded
STEP = 600.0  # of a step of training, or of what else is told within `watching`
SILENCE = 60.0  # without a beat: the process is stopped, or its machine is gone
OWN = str(Path(__file__).parent) + os.sep
PACKAGE = str(Path(__file__).parents[1]) + os.sep


@dataclass(frozen=True)
class Phase:
    """What the main thread does."""

    text: str
    since: float  # of the monotonic clock
    patience: float  # seconds until the next word is due


@dataclass(frozen=True)
class Beat:
    """A process at one moment, as the others see it."""

    count: int  # it lives as long as this rises
    host: str
    space: str  # of process numbers
    pid: int
    born: str
    phase: str
    age: float  # seconds since it said so
    patience: float
    where: str  # file:line in function, of this package
    waits: bool  # for the other processes
    asked: str  # the signal that asked it to end
    over: bool = False  # it left in order


news = Event()  # something to tell before the next beat
_patience = SETUP
_phase = Phase("start", time.monotonic(), SETUP)


def phase(text: str, patience: float | None = None) -> None:
    """Say what this process does now: it counts as progress, and a message says where all ended.

    patience: seconds until the next word is due; None: the usual, 12 hours outside of `watching`. A
    phase with one of its own is told at once, another with the next beat. A process may take as
    long as the most patient of all allows.
    """
    global _phase
    _phase = Phase(text, time.monotonic(), _patience if patience is None else patience)
    if patience is not None:
        news.set()


@contextmanager
def watching(seconds: float | None = None) -> Iterator[None]:
    """Within it a phase that does not say otherwise may take so many seconds; None: as
    `step_timeout`."""
    global _patience
    usual, _patience = _patience, timeout() or seconds or STEP
    try:
        yield
    finally:
        _patience = usual
        phase(_phase.text)


def step_timeout() -> float:
    """Seconds that a step may take: what STEPSIGHT_TIMEOUT says, else ten minutes."""
    return timeout() or STEP


def timeout() -> float | None:
    """STEPSIGHT_TIMEOUT, in seconds. Raises UserError unless it is a positive number."""
    text = os.environ.get("STEPSIGHT_TIMEOUT")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise UserError(f"environment: STEPSIGHT_TIMEOUT={text}: give a positive number, seconds.")
    return seconds


def silence() -> float:
    """Seconds without a beat until a process counts as lost."""
    return min(timeout() or SILENCE, SILENCE)


def beat(count: int, over: bool = False) -> Beat:
    """This process now."""
    now, pid = _phase, os.getpid()
    where, waits = _standing()
    return Beat(
        count,
        place.host(),
        place.space(),
        pid,
        place.state(pid)[1],
        now.text,
        time.monotonic() - now.since,
        now.patience,
        where,
        waits,
        signals.requested(),
        over,
    )


def _standing() -> tuple[str, bool]:
    """Where in this package the main thread is, and whether it waits there for other processes."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    waits = False
    while frame is not None:
        file = frame.f_code.co_filename
        waits = waits or file.endswith("distributed_c10d.py")
        if file.startswith(PACKAGE) and not file.startswith(OWN):
            return f"{file[len(PACKAGE) :]}:{frame.f_lineno} in {frame.f_code.co_name}", waits
        frame = frame.f_back
    return "", waits
