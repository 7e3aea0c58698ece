"""A tiny run, for faults to be done to, and copies of this process that train it.

A copy is forked from a parent that has imported everything and trained once, so that a trial costs
a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from stepsight import checkpoint
from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError
from stepsight.training.fit import fit

RESUMED: dict[str, Any] = {"resume": "auto"}
CLOCKS = ("seconds", "images_per_s", "data_share", "eta_s")  # of metrics.jsonl: never equal
FILES = (checkpoint.RAW, checkpoint.BACKBONE, checkpoint.OPTIMIZER, checkpoint.STATISTICS)


def settings(**training: Any) -> RunConfig:
    """Six batches on scenes of 16 x 16 pixels: a checkpoint every two of them, a line of losses
    every three and a validation after the second. `training` changes that."""
    usual = {"images": 48, "batch": 8, "warmup": 16, "validation_images": 2, "processes": 0}
    usual |= {"log_every": 24, "validate_every": 0, "first_validation": 16, "precision": "float32"}
    return from_dict(
        {
            "model": {"name": "split-8"},
            "tasks": {"depth": {}},
            "data": {"scenes": {"size": [16, 16], "count": 64}},
            "training": usual | {"checkpoint_every": 16, "evaluate": False} | training,
            "evaluation": {"nfe": 1, "members": 1, "batch": 8, "tuning_images": 3},
        }
    )


def warm(folder: Path) -> None:
    """Train once in this process, so that its copies need not load anything."""
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with open(os.devnull, "w") as nowhere:
        before, sys.stdout = sys.stdout, nowhere
        try:
            fit(settings(), name="tiny", run_dir=str(folder), overwrite=True)
        finally:
            sys.stdout = before


def forked(work: Callable[[], Any], log: Path, **environment: str) -> int:
    """The number of a copy of this process that does `work` and ends as the command line does."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.environ |= environment
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.stderr = open(handle, "w", buffering=1, closefd=False)
        work()
        status = 0
    except UserError as error:
        print(f"error: {error}")
        status = 2
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def trained(
    folder: Path,
    config: RunConfig,
    processes: int = 1,
    before: Callable[[], Any] = lambda: None,
    **options: Any,
) -> list[int]:
    """The numbers of processes that train in `folder`, each of which does something `before`; their
    words go to `folder`.log."""
    log = folder.with_suffix(".log")

    def work() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent was alone
        before()
        fit(config, name="tiny", run_dir=str(folder), **(RESUMED | options))

    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if processes == 1:
        return [forked(work, log)]
    ranks = map(str, range(processes))
    return [forked(work, log, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ranks]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ended(pids: list[int], within: float = 120.0) -> list[int]:
    """The exit statuses of processes, waited for; the negative number of a signal that ended one.
    One that is not done by then is killed."""
    until, left, statuses = time.monotonic() + within, list(pids), {}
    while left:
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
                left.remove(pid)
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return [statuses[pid] for pid in pids]


def outcome(folder: Path) -> dict[str, Any]:
    """All that has to be equal of two runs: the digests of weights, average, optimizer state and
    statistics, where the marks point, and the curve."""
    saved = checkpoint.read_newest(folder, say=lambda _: None)
    assert saved is not None, f"{folder} holds no checkpoint"
    digests = {name: _digest(saved, name) for name in FILES}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]
    marks = {name: (folder / "checkpoints" / name).read_text() for name in ("last.txt", "best.txt")}
    return {"digests": digests, "step": saved.meta["step"], "curve": rows, "marks": marks}


def _digest(saved: checkpoint.Checkpoint, name: str) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(saved.tensors(name).items()):
        digest.update(
            key.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first thing that is not equal, for people."""
    return next((f"{key}: {found[key]} in place of {wanted[key]}"[:300]
                 for key in wanted if found[key] != wanted[key]), "")  # fmt: skip


def fresh(template: Path, folder: Path) -> Path:
    """A copy of a run, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(template, folder)
