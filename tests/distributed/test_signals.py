"""Signals that ask to end: noted where there is something to save, else heeded at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from stepsight import signals
from stepsight.cli.entry import guarded

NOTED = [number for number in signals.ASKING if number != signal.SIGINT]
START = """
import os, signal, subprocess, sys, time
from stepsight import signals
from stepsight.cli.entry import guarded
"""


def program(text: str, **options) -> subprocess.Popen[str]:
    """Python that has printed that it is ready."""
    command = [sys.executable, "-c", START + text]
    run = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, **options)
    assert run.stdout is not None and run.stdout.readline() == "ready\n"
    return run


@pytest.mark.parametrize("number", signals.ASKING)
def test_a_signal_is_noted_for_the_program_to_end_where_it_likes(number, capfd):
    before = [signal.getsignal(each) for each in signals.ASKING]
    with signals.caught():
        assert signals.requested() == ""
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == number.name
    assert signals.requested() == ""
    assert [signal.getsignal(each) for each in signals.ASKING] == before
    assert capfd.readouterr().err.count(number.name) == 1


def test_what_was_preempted_says_so_with_a_status_of_its_own(capsys):
    def body(_: list[str]) -> int:
        raise signals.Preempted("step 7 is saved. Go on with --resume auto.")

    assert guarded(body, []) == signals.PREEMPTED == 75
    assert capsys.readouterr().err == "preempted: step 7 is saved. Go on with --resume auto.\n"


@pytest.mark.parametrize("number", [*NOTED, signal.SIGINT])
def test_before_there_is_anything_to_save_a_signal_ends_the_program_with_the_same_status(number):
    text = "def work(_):\n with signals.heeded():\n  print('ready', flush=True); time.sleep(60)\n"
    run = program(text + "raise SystemExit(guarded(work, []))")
    run.send_signal(number)
    _, err = run.communicate(timeout=20)
    status, said = (130, "") if number == signal.SIGINT else (75, "before there was anything to")
    assert run.returncode == status and said in err and "Traceback" not in err


def test_a_second_interrupt_ends_at_once_whatever_the_main_thread_does():
    """Here it waits in a call of C that returns to Python for no signal, and has a worker."""
    text = "import ctypes, multiprocessing\ndef work():\n time.sleep(60)\n"
    text += "with signals.caught():\n child = multiprocessing.get_context('fork').Process("
    text += "target=work, daemon=True)\n child.start()\n print('ready', flush=True)\n"
    text += " print(child.pid, flush=True)\n"
    text += " libc = ctypes.CDLL(None); stop = time.monotonic() + 60\n"
    text += " while time.monotonic() < stop:\n  libc.sleep(60)\n"
    run = program(text)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    for _ in range(2):
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)
    run.communicate(timeout=5)
    assert run.returncode == 130
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def test_a_signal_that_came_before_what_it_would_interrupt_prevents_it(monkeypatch):
    monkeypatch.setattr(signals, "_end_with_nothing_lost", lambda text: None)
    with signals.heeded():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Preempted, match="SIGTERM before there was anything to save"):
            with signals.caught():
                raise AssertionError("it began")


def test_once_there_is_something_to_lose_a_signal_waits_to_the_end(monkeypatch):
    ended: list[str] = []
    monkeypatch.setattr(signals, "_end_with_nothing_lost", ended.append)
    with signals.heeded():
        with signals.caught():
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # such as while a tracker is closed
        time.sleep(0.1)
        assert signals.requested() == "SIGTERM" and not ended


def test_what_is_ignored_stays_so():
    """nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.caught():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested() == ""
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_than_the_main_one_changes_nothing():
    found = []

    def run() -> None:
        with signals.caught():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded")  # of the thread that listens
@pytest.mark.parametrize("number", signals.ASKING)
def test_a_worker_leaves_signals_to_its_program(number):
    """A terminal sends INT, and a queue TERM, to every process of a job."""
    with signals.caught():
        pid = os.fork()
        if pid == 0:
            time.sleep(0.3 if number != signal.SIGTERM else 60)
            os._exit(0)
        time.sleep(0.1)
        for _ in range(2):
            os.kill(pid, number)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert signals.requested() == ""
