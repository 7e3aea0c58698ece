"""How a command ends when nobody reads on, or somebody presses Ctrl-C: without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from stepsight.cli.entry import CLOSED_PIPE, INTERRUPTED, guarded

PROGRAM = (sys.executable, "-m", "stepsight.cli.main")


def closed(*command: str) -> subprocess.Popen[str]:
    """The command, with an output that is closed before it is written to."""
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.Popen([*PROGRAM, *command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    return run


@pytest.mark.parametrize("command", [("protocols",), ("data", "--help"), ("train", "--help")])
def test_a_closed_pipe_ends_quietly(command):
    run = closed(*command)
    assert run.communicate(timeout=120) == (None, "")
    assert run.returncode == CLOSED_PIPE


def test_a_reader_that_has_seen_enough_gets_what_it_read():
    pipe = f"{sys.executable} -m stepsight.cli.main protocols | head -1"
    run = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "") and run.stdout.count("\n") == 1


def test_another_pipe_that_breaks_is_a_bug(capfd):
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        guarded(broken, [])


def test_an_interrupt_ends_quietly():
    code = "import time; from stepsight.cli.entry import guarded\n"
    code += "def wait(arguments): print('ready', flush=True); time.sleep(60)\n"
    code += "raise SystemExit(guarded(wait, []))"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert run.stdout is not None and run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60) == ("", "") and run.returncode == INTERRUPTED
