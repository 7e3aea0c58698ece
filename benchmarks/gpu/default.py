"""The default run with two seeds, at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpu.row import Row

ROOT = Path(__file__).parents[2]
TINY = ["--config", "smoke", "--training.images", "64", "--training.first-validation", "0"]
TINY += ["--training.processes", "1", "--data.scenes.count", "64", "--data.scenes.eval-count", "4"]
TINY += [
    "--evaluation.images",
    "4",
    "--evaluation.sweep",
    "False",
    "--evaluation.tuning-images",
    "0",
]


def run(size: str) -> Iterator[Row]:
    tiny = size == "tiny"
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, f"seed-{seed}") for seed in range(1 if tiny else 2)]
        began = time.monotonic()
        runs = [
            subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *(TINY if tiny else [])]
                + ["--run-dir", str(folder), "--training.seed", str(seed)]
            )
            for seed, folder in enumerate(folders)
        ]
        status = [one.wait() for one in runs]
        yield Row(f"{len(runs)} runs at a time", time.monotonic() - began, "s")
        for seed, folder in enumerate(folders):
            if status[seed] == 0:
                yield from _scores(folder, seed)
    if any(status):
        raise SystemExit(f"exit statuses {status}")


def _scores(folder: Path, seed: int) -> Iterator[Row]:
    for row in json.loads((folder / "eval" / "results.json").read_text()):
        metric = row["metric"]
        if metric in row["metrics"]:
            yield Row(f"{row['task']}, {metric}, seed {seed}", row["metrics"][metric])
    speeds = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    last = [row for row in speeds if row["kind"] == "train"][-1]
    yield Row(f"training, seed {seed}", last["images_per_s"], "images/s")
    yield Row(f"waits for data, seed {seed}", last["data_share"], "of the time")
