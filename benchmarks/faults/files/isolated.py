"""Cases tried one after the other in forked children: what crashes, hangs or fills memory ends its
child alone, and the next child goes on behind it."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0  # of processor time that a case may take
PATIENCE = 60  # seconds by the clock, on a machine that others load
MEMORY = 256_000_000  # bytes that a case may take besides what the child began with
ADDRESSES = 4 << 30  # bytes of address space besides: what asks for more gets a MemoryError


@dataclass
class Outcome:
    """What became of a number of cases. `faults` are the first few, in words."""

    tried: int = 0
    failed: int = 0
    megabytes: float = 0.0  # at most, besides what there was
    seconds: float = 0.0  # of processor time, at most
    faults: tuple[str, ...] = ()

    def add(self, fault: str) -> None:
        self.failed += 1
        self.faults = (*self.faults, fault)[:10]


def tried(case: Callable[[int], str | None], count: int) -> Outcome:
    """`case(number)` for each number below `count`: None where it went as it should, or what went
    wrong. Raising, crashing, hanging, and more than `MEMORY` are wrong too."""
    found, done = Outcome(), 0
    while done < count:
        done = _child(case, done, count, found)
    return found


def _child(case: Callable[[int], str | None], first: int, count: int, found: Outcome) -> int:
    """Try what is left in one child; the number of the first case that it did not come to."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's idle threads
        child = os.fork()
    if not child:
        try:
            os.close(reading)
            _work(case, first, count, writing)
        finally:
            os._exit(1)
    os.close(writing)
    done = first
    with os.fdopen(reading) as pipe:
        for line in pipe:
            row = json.loads(line)
            done, found.tried = row["number"] + 1, found.tried + 1
            found.seconds = max(found.seconds, row["seconds"])
            found.megabytes = max(found.megabytes, row["bytes"] / 1e6)
            if row["fault"]:
                found.add(f"case {row['number']}: {row['fault']}")
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        found.tried += 1
        found.add(f"case {done}: {signal.Signals(os.WTERMSIG(status)).name}")
        done += 1
    return done


def _work(case: Callable[[int], str | None], first: int, count: int, pipe: int) -> None:
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (room + ADDRESSES, room + ADDRESSES))
    sys.setrecursionlimit(1000)
    warnings.simplefilter("ignore")  # of decoders about what they repair
    for number in range(first, count):
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)  # no handler: it ends a hanging child
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, clock = _kilobytes("VmRSS"), os.times()
        try:
            fault = case(number)
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"[:300]
        after = os.times()
        seconds = after.user + after.system - clock.user - clock.system
        taken = (_kilobytes("VmHWM") - before) * 1024
        if not fault and taken > MEMORY:
            fault = f"took {taken / 1e6:.0f} MB"
        if not fault and seconds > SECONDS:
            fault = f"took {seconds:.1f} s"
        row = {"number": number, "fault": fault, "seconds": seconds, "bytes": taken}
        os.write(pipe, json.dumps(row).encode() + b"\n")
    os._exit(0)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
