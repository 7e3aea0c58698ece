"""Errors of one process among several: said once, by it, and the end of all."""

from __future__ import annotations

import time
import traceback

from stepsight import signals
from stepsight.distributed import launching, place, watch
from stepsight.distributed.board import Fault, quickly, say
from stepsight.distributed.watch import Watch
from stepsight.errors import UserError
from stepsight.signals import FAULT, PREEMPTED, USER_ERROR, Preempted

SIGNS = 2  # beats that show that another process lives on
CHORUS = 3.0  # seconds in which the same error may be raised in all processes


def speak(error: Exception, debug: bool = False) -> int:
    """Say what ends this process, and return its exit status: 2 for a UserError, 75 for what was
    preempted; else 1, with the traceback. debug: always with it.

    In a group this does not return. The error is posted, so that the others end with the same
    status; one that follows from the end of another process is not said, and one that all have is
    said once. Alone, what is no UserError is raised again.
    """
    mine = watch.current()
    if mine is not None:
        _speak_in(mine, error, debug)
    status = _status(error)
    if status == FAULT or (debug and status == USER_ERROR):
        raise error
    if place.rank() > 0:  # not joined: the first process has the same error, or knows nothing
        time.sleep(launching.SPEECH)
        say(_line(error, place.named(place.rank(), place.host())))
    else:
        say(_line(error))
    return status


def _speak_in(mine: Watch, error: Exception, debug: bool) -> None:
    signals.ignore()  # a launcher sends TERM when another process has failed
    status = _status(error)
    fault = _cause(mine) if status == FAULT and isinstance(error, RuntimeError) else None
    mine.seize()
    if fault is not None:  # this is torch's word for a group that has lost a member
        mine.end(fault.status)
    words = f"{type(error).__name__}: {error}"
    quickly(lambda: mine.board.end(mine.rank, words), None)
    fault = Fault(mine.rank, status, words)
    first = quickly(lambda: mine.board.claim(fault), fault)
    if first == fault or first.text != words:
        alike = status == PREEMPTED  # as all are, since a signal is everyone's
        if first == fault and not alike:
            alike = {*mine.of_others(mine.board.ends, CHORUS).values()} == {words}
        text = _line(error, "" if alike else place.named(mine.rank, place.host()))
        if status == FAULT or (debug and status == USER_ERROR):
            text = "".join(traceback.format_exception(error)) + text
        say(text)
    mine.end(first.status, words)


def end_preempted(text: str) -> None:
    """End this process, and with it the others, at a signal; unless it is a launcher's, after one
    of them has failed."""
    if (mine := watch.current()) is not None:
        if fault := _cause(mine):
            mine.seize()
            mine.end(fault.status)
        mine.declare(Fault(mine.rank, PREEMPTED, text))


def _cause(mine: Watch) -> Fault | None:
    """The fault of another process from which a RuntimeError of this one may follow; None once all
    others have shown that they live on. (One that is lost is found by the watch, which ends this
    process meanwhile.)"""
    mine.alarmed, deadline = True, time.monotonic() + 2 * watch.ALARM
    before = {rank: peer.beat.count for rank, peer in mine.peers.items()}
    while mine.fault is None and time.monotonic() < deadline:
        counts = {rank: peer.beat.count for rank, peer in mine.peers.items()}
        if all(counts.get(rank, 0) >= before.get(rank, 0) + SIGNS for rank in mine.awaited()):
            return None
        time.sleep(0.05)
    return mine.fault


def _status(error: Exception) -> int:
    if isinstance(error, UserError):
        return USER_ERROR
    return PREEMPTED if isinstance(error, Preempted) else FAULT


def _line(error: Exception, who: str = "") -> str:
    kind = "preempted" if isinstance(error, Preempted) else "error"
    text = str(error) if _status(error) != FAULT else f"{type(error).__name__}: {error}"
    return ": ".join(filter(None, (kind, who, text)))


signals.ways_out.append(end_preempted)
