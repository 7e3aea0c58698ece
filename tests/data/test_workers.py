"""`each` item by this process or by others, and what becomes of their errors."""

from __future__ import annotations

import os
import signal

import pytest

from stepsight.data.workers import each
from stepsight.errors import UserError


def double(item: int) -> int:
    return 2 * item


def locked(item: int) -> int:
    raise PermissionError(13, "Permission denied", "frame.png")


def bug(item: int) -> int:
    raise RuntimeError("a bug")


def killed(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("workers", [0, 1])
def test_results_come_in_order_and_errors_as_what_they_are(workers):
    assert list(each(double, range(5), workers)) == [0, 2, 4, 6, 8]
    with pytest.raises(UserError, match=r"item 0: .*Permission denied.*frame\.png"):
        list(each(locked, range(2), workers))
    with pytest.raises(RuntimeError, match="a bug"):
        list(each(bug, range(2), workers))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torn queues
def test_a_killed_worker_is_told_with_what_to_do():
    with pytest.raises(UserError, match="worker process died.*--workers"):
        list(each(killed, range(2), 1))
