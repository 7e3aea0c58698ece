"""Checkpoints of 1, 2 and 4 processes, whole or sharded, continued by any of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.faults import Tally
from benchmarks.faults.runs import warm
from benchmarks.faults.world_size import LOSS, WALKS, Kind, Way, begun, config_of, together
from stepsight import checkpoint
from stepsight.report.console import Console
from stepsight.training.loop import train
from stepsight.training.optim import pack_optimizers
from stepsight.training.progress import Progress
from stepsight.training.sharding import full

KIND = Kind("split-8", ("depth", "flow"), WALKS | {"checkpoint_every": 64})
SAVED, STEPS = 4, 8


def run(quick: bool, folder: Path) -> list[Tally]:
    """Every way of writing with every way of reading."""
    warm(folder / "warm")
    worlds = (1, 2) if quick else (1, 2, 4)
    ways = [Way(world, 1, sharding) for world, sharding in product(worlds, ("none", "full"))]
    ways = [way for way in ways if way.processes > 1 or way.sharding == "none"]
    for do, world in product((_write, _read), worlds):
        mine = [way for way in ways if way.processes == world]

        def work(do: Any = do, mine: list[Way] = mine) -> None:
            for way in mine:
                do(folder, way, ways)

        together(world, work, folder / f"{do.__name__}-{world}.log")
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("* to *.json"))]
    equal, close = (
        sum(cell["equal"] for cell in cells),
        sum(cell["apart"] <= LOSS for cell in cells),
    )
    worst = max(cell["apart"] for cell in cells)
    return [
        Tally(
            f"resharding, {len(ways)} ways of writing x {len(ways)} of reading",
            len(cells),
            equal,
            "sha256 of weights, average and optimizer state equal",
            next((cell["name"] for cell in cells if not cell["equal"]), ""),
        ),
        Tally(
            "training goes on after resharding",
            len(cells),
            close,
            f"losses within {LOSS:g} of the run that wrote",
            f"loss {worst:.1e}",
        ),
    ]


def _write(folder: Path, way: Way, _: list[Way]) -> None:
    learner, feed, writer = begun(folder / way.name, config_of(KIND, way, STEPS))
    train(learner, feed, Progress(), writer, Console(enabled=False))


def _read(folder: Path, way: Way, writers: list[Way]) -> None:
    """Open in one way what the others wrote, compare, and train to the end."""
    for wrote in writers:
        name = f"{wrote.name} to {way.name}"
        saved = checkpoint.read(folder / wrote.name / "checkpoints" / checkpoint.step_name(SAVED))
        learner, feed, writer = begun(folder / name, config_of(KIND, way, STEPS))
        progress = learner.resume(saved, Console(enabled=False))
        own = {
            checkpoint.RAW: dict(learner.net.state_dict()),
            checkpoint.BACKBONE: learner.ema.values,
            checkpoint.OPTIMIZER: pack_optimizers(learner.optimizers),
        }
        equal = all(_digest(one) == _digest(saved.tensors(file)) for file, one in own.items())
        train(learner, feed, progress, writer, Console(enabled=False))
        if writer.main:
            before, after = _losses(folder / wrote.name)[SAVED:], _losses(folder / name)
            apart = max(abs(a - b) for a, b in zip(before, after, strict=True))
            cell = {"name": name, "equal": equal, "apart": apart}
            (folder / f"{name}.json").write_text(json.dumps(cell))


def _digest(values: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(values.items()):
        whole = full(value.detach()).contiguous().flatten()
        digest.update(key.encode() + whole.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["loss"] for row in rows if row["kind"] == "train"]
