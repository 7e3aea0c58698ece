"""Signals that ask a program to end, and the exit statuses that say how it ended.

A queue takes a machine back with a signal (TERM, USR1), a terminal that closes sends HUP, Ctrl-C
sends INT. Under `caught` they are noted: the program asks `requested` where it can end with nothing
lost, saves, and raises `Preempted`. A second INT ends it at once, whatever it is doing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DONE, FAULT, USER_ERROR = 0, 1, 2
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: start it again, and it goes on
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
NOTHING_LOST = "before there was anything to save. The same command starts it again."

# How a member of a group ends with the others; called with a message, from a thread.
ways_out: list[Callable[[str], None]] = []

_requested = ""
_installed = False
_noting = False  # else a signal ends the program


class Preempted(Exception):
    """The program was asked to end and has saved: exit status 75.

    The message says what was saved and how to go on.
    """


def requested() -> str:
    """The signal that asked this program to end, such as "SIGTERM"; "" as long as none did."""
    return _requested


def request(name: str) -> None:
    """Ask this program to end, as the signal `name` would."""
    global _requested
    _requested = _requested or name


@contextmanager
def caught() -> Iterator[None]:
    """Note the signals of `ASKING` in place of dying of them; a second INT ends the program at
    once, with status 130.

    Signals that are ignored (nohup) stay so. Without effect outside of the main thread, which alone
    may choose what signals do. Within `heeded` it holds to the end of that, since now there is
    something to lose; raises Preempted for a signal that came before.
    """
    global _noting
    with heeded():
        if _requested and not _noting:
            raise Preempted(f"{_requested} {NOTHING_LOST}")
        _noting = _installed
        yield


@contextmanager
def heeded() -> Iterator[None]:
    """Until something is `caught`, end at once with status 75 at a signal of `ASKING`, but for INT,
    which stays what it is: for a program that has nothing to save yet."""
    global _installed, _requested, _noting
    if _installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    _installed = True
    usual = {number: signal.getsignal(number) for number in ASKING}
    for number in ASKING:
        if usual[number] != signal.SIG_IGN:
            signal.signal(number, _note)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(ours,), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.shutdown(socket.SHUT_WR)  # also of the copies that workers have
        listener.join()
        theirs.close()
        _installed, _noting, _requested = False, False, ""
        for number in ASKING:
            signal.signal(number, usual[number] or signal.SIG_DFL)


def ignore() -> None:
    """Ignore the signals of `ASKING` from now on: this process is ending, and says why."""
    if threading.current_thread() is threading.main_thread():
        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)


def end_at_once(status: int) -> None:
    """End this process and its workers from any thread, whatever the main thread is doing."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, RuntimeError):  # closed, or its lock is held
            pass
    os._exit(status)


def _note(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if number == signal.SIGINT and not _noting:
        signal.default_int_handler(number, frame)
    if _noting and not _requested and os.environ.get("RANK", "0") == "0":
        again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
        line = f"\n{name}: ends where nothing is lost{again}\n"
        os.write(2, line.encode())  # a stream may be in the middle of a line of its own
    request(name)


def _listen(numbers: socket.socket) -> None:
    """A thread: the main one may be in a call that looks at no signal until it returns."""
    interrupts = 0
    with numbers:
        while received := numbers.recv(64):
            interrupts += received.count(signal.SIGINT)
            if interrupts > 1:
                end_at_once(INTERRUPTED)
            asking = [number for number in received if number in ASKING[:-1]]
            if asking and not _noting:
                _end_with_nothing_lost(f"{signal.Signals(asking[0]).name} {NOTHING_LOST}")


def _end_with_nothing_lost(text: str) -> None:
    for end in ways_out:
        end(text)
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"preempted: {text}\n".encode())
    end_at_once(PREEMPTED)


def _in_fork() -> None:
    """A worker of a program that catches signals leaves them to it: a terminal, and many a queue,
    send them to all processes of a job. TERM still ends it, with a status that torch's data loaders
    do not take for a crash: they would interrupt the save."""
    if _installed:
        signal.set_wakeup_fd(-1)  # it is the parent's
        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(DONE))


os.register_at_fork(after_in_child=_in_fork)
