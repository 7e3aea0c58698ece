"""Scenes rendered per second on one core: single frames and full two-frame sets.

    OMP_NUM_THREADS=1 python benchmarks/scenes.py [--scenes 128]

"single" is what a depth, labels and amodal run asks for, shadows included; "pair" what a run on
all tasks asks for; "everything" adds backward flow, occlusion both ways and instances. Figures are
per second of CPU time (steadier on a shared machine) and of wall time, the median of five rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from frames import frames_in  # noqa: E402

from stepsight.data.config import ScenesSettings  # noqa: E402
from stepsight.data.scenes.source import QUANTITIES, Scenes  # noqa: E402

SINGLE = frozenset({"depth", "labels", "amodal"})
ROUNDS = 5


def rates(render: Callable[[Sequence[int]], object], count: int) -> tuple[float, float]:
    """Scenes per CPU second and per second."""
    render(range(min(count, 16)))
    cpu, wall = [], []
    for start in range(0, ROUNDS * count, count):
        before = time.process_time(), time.perf_counter()
        render(range(start, start + count))
        cpu.append(count / (time.process_time() - before[0]))
        wall.append(count / (time.perf_counter() - before[1]))
    return statistics.median(cpu), statistics.median(wall)


def main() -> None:
    parser = argparse.ArgumentParser(description="Scenes rendered per second.")
    parser.add_argument("--scenes", type=int, default=128, help="scenes a round at 64 x 64")
    count = parser.parse_args().scenes
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, scenes per second: CPU / wall")
    for side in (64, 128, 256):
        settings = ScenesSettings(size=(side, side), count=ROUNDS * count)
        single, pair = (Scenes(settings, "train", q) for q in (SINGLE, QUANTITIES))
        kinds = {
            "single": single.samples,
            "pair": pair.samples,
            "everything": partial(frames_in, pair),
        }
        for name, render in kinds.items():
            cpu, wall = rates(render, max(4, count * 64**2 // side**2))
            print(f"{side:4d} px  {name:10s}  {cpu:7.1f} / {wall:7.1f}")


if __name__ == "__main__":
    main()
