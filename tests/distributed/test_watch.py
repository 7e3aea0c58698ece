"""What the watch of a process says of it, and when it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest

from stepsight.distributed import beats, watch
from stepsight.distributed.beats import Beat
from stepsight.distributed.board import Board, Fault
from stepsight.errors import UserError


class Slow(Board):
    """A board of one process on which a beat takes its time."""

    def __init__(self) -> None:
        self.written: list[Beat] = []
        self.writing = threading.Event()

    def beat(self, rank: int, beat: Beat) -> None:
        self.writing.set()
        time.sleep(0.2 if not beat.over else 0)
        self.written.append(beat)

    def first(self, rank: int) -> dict[int, Beat]:
        return {}

    def fault(self) -> Fault | None:
        return None

    def beats(self, ranks: Iterable[int]) -> dict[int, Beat]:
        return {}


def test_nothing_is_said_after_the_last_word():
    """A beat that was under way while the process left made the others take its end for a death."""
    board = Slow()
    one = watch.Watch(board, hosts=False)
    one.interval = 0.01
    one.start()
    board.writing.clear()
    assert board.writing.wait(5)
    one.leave()
    time.sleep(0.3)
    assert [beat.over for beat in board.written][-1] and len(board.written) > 1


def test_a_process_says_where_it_is_in_the_package():
    here = threading.Event()
    found: list[Beat] = []

    def look() -> None:
        here.wait()
        found.append(beats.beat(1))

    looking = threading.Thread(target=look)
    looking.start()
    with beats.watching(7.0):
        beats.phase("step 3")
        here.set()
        looking.join()
    assert (found[0].phase, found[0].patience, found[0].waits) == ("step 3", 7.0, False)


@pytest.mark.parametrize("text", ["", "soon", "0", "-3", "nan"])
def test_a_time_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("STEPSIGHT_TIMEOUT", text)
    with pytest.raises(UserError, match="STEPSIGHT_TIMEOUT=.*positive number"):
        beats.step_timeout()
