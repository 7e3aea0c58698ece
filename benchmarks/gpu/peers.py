"""Training steps and experts beside their peers: `stepsight bench step experts`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gpu.row import Row
from gpu.timing import device_of
from stepsight.bench.protocol import Setup
from stepsight.bench.table import bench


def run(size: str) -> Iterator[Row]:
    setup = Setup(str(device_of(size)), tiny=size == "tiny", rounds=5)
    for name in ("experts", "step"):
        torch.manual_seed(0)
        for row in bench(name).run(setup):
            took = f"{row.ms[0]:.2f} ms" if row.ms else ""
            what = f"{row.case}: {row.side}, times as fast as {row.peer}"
            yield Row(what, row.ratio, note=took)
