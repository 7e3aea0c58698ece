"""Which of the processes this is, and where it runs."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path


def rank() -> int:
    return _number("RANK", 0)


def world() -> int:
    return _number("WORLD_SIZE", 1)


def _number(name: str, usual: int) -> int:
    """A word that is none is refused by `launching.check_environment`."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else usual


def named(number: int, host: str) -> str:
    """`rank 1 of 2 (node7)`."""
    return f"rank {number} of {world()} ({host})"


@cache
def host() -> str:
    return socket.gethostname()


@cache
def space() -> str:
    """Where a process number means the same process: this boot of this machine or container; ""
    where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def state(pid: int) -> tuple[str, str]:
    """What the system says of a process of this machine: its state (R runs, S sleeps, T is stopped,
    X has ended) and when it was started, in ticks since boot."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", ""
    return "X" if fields[0] == "Z" else fields[0].upper(), fields[19]
