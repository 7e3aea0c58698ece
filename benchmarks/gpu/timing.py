"""Seconds of work on a device that is idle before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def device_of(size: str) -> torch.device:
    """A GPU, or the CPU for a dry run. Raises RuntimeError without a GPU."""
    if size == "tiny":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU; --tiny makes a dry run without one")
    return torch.device("cuda")


def seconds(
    work: Callable[[], object], device: torch.device, rounds: int = 5, warm: int = 2
) -> float:
    """The median over rounds, after some that warm up; on a CPU of one."""
    rounds, warm = (1, 0) if device.type == "cpu" else (rounds, warm)
    took = []
    for _ in range(warm + rounds):
        idle(device)
        began = time.perf_counter()
        work()
        idle(device)
        took.append(time.perf_counter() - began)
    return median(took[warm:])


def idle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
