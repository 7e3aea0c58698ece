"""How fast a device multiplies matrices: what utilisation is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from stepsight.execution.precision import DTYPES, computing

SIDES = {"cuda": 8192, "cpu": 1024}
ROUNDS = 7


@torch.no_grad()
def matmul_flops(
    device: torch.device,
    precision: str,
    side: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of a product of square matrices in a precision, the best of a few rounds.

    In float32 without TF32; on a CPU by all threads of the process. side: of the matrices; 8192 on
    a GPU, 1024 on a CPU. clock: in seconds, of a CPU; a GPU has its own.
    """
    side = side or SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    with computing(device, precision):
        return 2 * side**3 / min(_seconds(a, b, clock) for _ in range(ROUNDS))


def _seconds(a: torch.Tensor, b: torch.Tensor, clock: Callable[[], float]) -> float:
    if a.device.type == "cpu":
        began = clock()
        torch.mm(a, b)
        return clock() - began
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(4):
        torch.mm(a, b)
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 4e3
