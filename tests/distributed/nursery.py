"""Raises groups of processes by forking them off one that has imported what they need.

`nursery.py FOLDER CASE...`, a case being FAULT:RANK:STAGE of `member.py`: prints a JSON object with
the exit statuses of the two processes of every case, the seconds from the fault to the end of both,
and what they wrote to stderr. A few cases run at a time.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import member
import torch.distributed  # noqa: F401  what takes a second, once

WORLD = 2
AT_ONCE = 4


@dataclass
class Group:
    """A case under way."""

    case: str
    folder: Path
    statuses: dict[int, int] = field(default_factory=dict)  # by rank
    ranks: dict[int, int] = field(default_factory=dict)  # by pid
    ended: float = 0.0

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        for rank in range(WORLD):
            pid = os.fork()
            if pid == 0:
                self._live(rank, port)
            self.ranks[pid] = rank

    def _live(self, rank: int, port: int) -> None:
        """In the child."""
        sink = os.open(self.folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 2)
        shared = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= shared | {"RANK": str(rank), "FAULTS": str(self.folder)}
        try:
            status = member.main([str(WORLD), *self.case.split(":")])
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 99
        os._exit(status)

    def found(self) -> dict[str, Any]:
        stamp = self.folder / "fault"
        began = float(stamp.read_text()) if stamp.exists() else self.ended
        return {
            "statuses": [self.statuses[rank] for rank in range(WORLD)],
            "pids": {rank: pid for pid, rank in self.ranks.items()},
            "seconds": self.ended - began,
            "stderr": (self.folder / "stderr").read_text(),
        }


def raised(cases: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    waiting = [Group(case, folder / str(number)) for number, case in enumerate(cases)]
    groups, running = list(waiting), list[Group]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            group = waiting.pop(0)
            group.folder.mkdir()
            group.start()
            running.append(group)
        pid, status = os.wait()
        (group,) = [each for each in running if pid in each.ranks]
        group.statuses[group.ranks[pid]] = os.waitstatus_to_exitcode(status)
        if len(group.statuses) == WORLD:
            group.ended = time.time()
            running.remove(group)
    return {group.case: group.found() for group in groups}


if __name__ == "__main__":
    print(json.dumps(raised(sys.argv[2:], Path(sys.argv[1]))))
