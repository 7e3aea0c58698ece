"""Processes: those a launcher gives, or those the program starts by itself on a CPU.

Small networks use two single-thread processes far better than two threads in one. So on a machine
without a GPU the first process starts the second as a copy of its own command, and becomes rank 0.
`start` is called before torch is imported, so that the number of threads holds; then all `join`.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from stepsight.errors import UserError

MAX_AUTOMATIC = 2  # processes started unasked
PATIENCE = timedelta(hours=12)  # the others wait while one reads or codes a data set

Agreed = TypeVar("Agreed")


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def start(processes: int, command: Sequence[str], threads: int = 1) -> None:
    """Make the process group's environment; start the other processes if no launcher did.

    processes: 0 chooses; command: what the copies run (this program with its arguments); threads:
    of each process, on a CPU.
    """
    # Which parameters a task does not use changes from step to step; torch would warn of it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    launched = "WORLD_SIZE" in os.environ
    if not launched:
        count = processes or _automatic()
        if count > 1:
            _start_copies(count, command, threads)
    if not _has_gpu():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def join() -> None:
    """Join the processes that were launched beside this one."""
    import torch
    import torch.distributed as dist

    if world() > 1 and not dist.is_initialized():
        if torch.cuda.is_available():  # before the first collective, which would take device 0
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def agreed(make: Callable[[], Agreed]) -> Agreed:
    """What `make` gives in the first process, for all of them.

    Raises in all of them the UserError or OSError that it raises there.
    """
    import torch.distributed as dist

    answer: list[object] = [None]
    if rank() == 0:
        try:
            answer[0] = make()
        except (UserError, OSError) as error:
            answer[0] = error
    if dist.is_initialized():
        dist.broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]


def leave() -> None:
    """Wait for the other processes and part from them."""
    barrier()
    part()


def part() -> None:
    """Leave the process group, if this process is in one, without waiting for the others: the
    threads that a group still has when the interpreter ends can abort it."""
    group = sys.modules.get("torch.distributed")  # nothing is loaded for a program without torch
    if group is not None and group.is_available() and group.is_initialized():
        group.destroy_process_group()


def _automatic() -> int:
    return 1 if _has_gpu() else min(MAX_AUTOMATIC, len(os.sched_getaffinity(0)))


def _has_gpu() -> bool:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return os.path.exists("/dev/nvidiactl") and not hidden


def _start_copies(count: int, command: Sequence[str], threads: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if not _has_gpu():
        shared |= {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
    copies = [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | shared | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.DEVNULL,
        )
        for number in range(1, count)
    ]
    os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
    atexit.register(_reap, copies)


def _reap(copies: list[subprocess.Popen]) -> None:
    """At exit: give the copies a moment to end by themselves, then end them."""
    for copy in copies:
        try:
            copy.wait(timeout=5)
        except subprocess.TimeoutExpired:
            copy.kill()
            copy.wait()
