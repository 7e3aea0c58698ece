"""Coming together, and saying something to all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from stepsight.distributed import launching, watch
from stepsight.distributed.place import rank, world
from stepsight.errors import UserError

GROUP = timedelta(hours=12)  # a wait without end, but that the watch is shorter

T = TypeVar("T")


def join() -> None:
    """Join the processes that were launched beside this one, and begin to watch them.

    Raises UserError where the first process cannot be found.
    """
    import torch
    import torch.distributed as dist

    if world() == 1 or dist.is_initialized():
        return
    launching.check_environment()
    address, port = launching.address()
    if torch.cuda.is_available():  # before the first collective, which would take device 0
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    hosts = rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    waiting = timedelta(seconds=watch.JOIN)
    try:
        socket = launching.listening.pop().detach() if launching.listening else None
        main = dist.TCPStore(  # type: ignore[attr-defined]
            address,
            port,
            world(),
            hosts,
            waiting,
            wait_for_workers=False,
            multi_tenant=True,
            master_listen_fd=socket,
        )
        # A connection of its own: what the main thread waits for holds up its connection.
        own = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, world(), False, waiting, wait_for_workers=False
        )
    except RuntimeError as error:
        raise UserError(
            f"the first process was not found at {address}:{port} (MASTER_ADDR, MASTER_PORT): "
            f"{str(error).splitlines()[0]}"
        ) from error
    watch.begin(own, hosts)
    prefix = f"{watch.attempt()}/group"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store = dist.PrefixStore(prefix, main)  # type: ignore[attr-defined]
    dist.init_process_group(backend, timeout=GROUP, store=store, rank=rank(), world_size=world())
    launching.joined.set()


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def agreed(make: Callable[[], T]) -> T:
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


def gathered(value: T) -> list[T]:
    """What every process has, in the order of their ranks."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return [value]
    values: list[T] = [value] * world()
    dist.all_gather_object(values, value)
    return values


def leave() -> None:
    """Wait for the other processes and part from them."""
    barrier()
    part()


def part() -> None:
    """Leave the process group, if this process is in one, without waiting for the others: the
    threads that a group still has when the interpreter ends can abort it."""
    watch.end()
    group = sys.modules.get("torch.distributed")  # nothing is loaded for a program without torch
    if group is not None and group.is_available() and group.is_initialized():
        group.destroy_process_group()
        launching.forget_copies()
