"""Benches run and their rows kept: the document that `stepsight bench` writes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import torch

from stepsight.bench import machine
from stepsight.bench.protocol import Setup, one_thread
from stepsight.bench.table import bench

FORMAT = 1
Document = dict[str, Any]  # format, date, machine, versions, load, setup, protocols, rows


def measured(
    names: Sequence[str], setup: Setup, say: Callable[[str], None] = lambda line: None
) -> Document:
    """The named benches, one after another. Raises AssertionError where outputs are not equal."""
    rows, before = [], machine.load()
    with one_thread():
        for name in names:
            say(f"{name} ...")
            torch.manual_seed(0)
            for row in bench(name).run(setup):
                say(f"{name}: {row.case}, {row.side}")
                rows.append({"bench": name, **asdict(row)})
            gc.collect()
    return {
        "format": FORMAT,
        "date": date.today().isoformat(),
        "machine": machine.machine(),
        "versions": machine.versions(),
        "load": [before, machine.load()],
        "setup": {"device": setup.device, "size": setup.size, "rounds": setup.rounds},
        "protocols": {name: " ".join(bench(name).PROTOCOL.split()) for name in names},
        "rows": rows,
    }
