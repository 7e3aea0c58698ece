"""Starting processes, and not outliving them.

Small networks use two single-thread processes far better than two threads in one. So on a machine
without a GPU the first process starts the second as a copy of its own command, and becomes rank 0.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Event, Thread

from stepsight.distributed import place
from stepsight.distributed.board import say
from stepsight.errors import UserError
from stepsight.signals import FAULT, end_at_once, ways_out

MAX_AUTOMATIC = 2  # processes started unasked
LOOK = 0.5  # seconds between looks whether a process that this one needs still lives
SPEECH = 5.0  # seconds that others have to say a cause which they know better
SAVING = 60.0  # seconds that the copies have to end after this process
PARENT = "STEPSIGHT_PARENT"  # the process that started this copy

copies: list[subprocess.Popen[bytes]] = []  # those that this process started
listening: list[socket.socket] = []  # where they will find it; bound, so that nobody else is there
joined = Event()  # from here on the processes watch each other through their store


def start(processes: int, command: Sequence[str], threads: int = 1) -> None:
    """Make the process group's environment; start the other processes if no launcher did.

    processes: 0 chooses; command: what the copies run (this program with its arguments); threads:
    of each process, on a CPU. Called before torch is imported, so that the number of threads holds.
    Raises UserError for half of a launcher's environment.
    """
    # Which parameters a task does not use changes from step to step; torch would warn of it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    check_environment()
    if "WORLD_SIZE" not in os.environ:
        count = processes or _automatic()
        if count > 1:
            _start_copies(count, command, threads)
    elif os.environ.get(PARENT) == str(os.getppid()):
        Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    if not _has_gpu():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def check_environment() -> None:
    """Raise UserError for an environment that no launcher makes."""
    found = {name: os.environ.get(name) for name in ("WORLD_SIZE", "RANK")}
    if found["WORLD_SIZE"] is None and found["RANK"] is None:
        return
    told = ", ".join(f"{name} is {value or 'not set'}" for name, value in found.items())
    advice = "A launcher (torchrun, accelerate launch) sets both; without one, unset both."
    if not all(value and value.isdecimal() for value in found.values()):
        raise UserError(f"environment: {told}. {advice}")
    if not place.rank() < place.world():
        raise UserError(f"environment: {told}: ranks go from 0 to WORLD_SIZE - 1. {advice}")


def address() -> tuple[str, int]:
    """Where the processes meet. Raises UserError where no launcher said so."""
    name, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not name or not port.isdecimal():
        raise UserError(
            f"environment: WORLD_SIZE is {place.world()}, MASTER_ADDR is {name or 'not set'} and "
            f"MASTER_PORT is {port or 'not set'}. A launcher (torchrun, accelerate launch) sets "
            f"all of them; without one, unset them."
        )
    return name, int(port)


def forget_copies() -> None:
    """Be a process of its own again, as before `start`, once the copies have ended."""
    if copies:
        reap(SAVING)
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        for name in ("RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        joined.clear()


def reap(patience: float) -> None:
    """Give the copies so many seconds to end by themselves, then end them."""
    deadline = time.monotonic() + patience
    while copies:
        copy = copies.pop()
        try:
            copy.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            copy.kill()
            copy.wait()


def _reap_at_end(*_: object) -> None:
    """Copies that have not joined wait for this process; those that have know what to do."""
    reap(SAVING if joined.is_set() else 0)


def _automatic() -> int:
    return 1 if _has_gpu() else min(MAX_AUTOMATIC, len(os.sched_getaffinity(0)))


def _has_gpu() -> bool:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return os.path.exists("/dev/nvidiactl") and not hidden


def _start_copies(count: int, command: Sequence[str], threads: int) -> None:
    listening[:] = [socket.create_server(("127.0.0.1", 0))]
    port = listening[0].getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if not _has_gpu():
        shared |= {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
    own = {PARENT: str(os.getpid())}
    for number in range(1, count):
        place_of_copy = {"RANK": str(number), "LOCAL_RANK": str(number)}
        copies.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | shared | own | place_of_copy,
                stdout=subprocess.DEVNULL,
            )
        )
    os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
    Thread(target=_watch_copies, args=(tuple(copies),), daemon=True).start()
    atexit.register(_reap_at_end)
    ways_out.append(_reap_at_end)


def _watch_copies(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have joined: end with a copy that ends."""
    while not joined.wait(LOOK):
        ended = [copy for copy in started if copy.poll() is not None]
        if ended and not joined.wait(SPEECH):  # time for this process to meet the same error
            number, status = started.index(ended[0]) + 1, ended[0].returncode
            if status < 0:  # else it has spoken
                who = f"{place.named(number, place.host())}, process {ended[0].pid},"
                say(f"error: {who} died of signal {-status} before it joined.")
            reap(0)
            end_at_once(status if status > 0 else FAULT)


def _watch_parent(parent: int) -> None:
    """In a copy: end with the process that started it."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    time.sleep(SPEECH)  # as a member of the group this process says it better, and ends earlier
    who = f"{place.named(0, place.host())}, process {parent},"
    say(f"error: {who} died; its copy ends with it.")
    end_at_once(FAULT)
