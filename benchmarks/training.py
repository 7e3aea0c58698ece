"""Training images per second of one process, and the share of the step spent on data.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--model split-32] [--batch 8] [--steps 40]

The loop is the one of `train.py`, with data from a bank; figures are medians over its log lines. On
a GPU also the model FLOP/s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

from stepsight import config as configuration
from stepsight.report.console import Console
from stepsight.training.folder import RunWriter
from stepsight.training.loop import train
from stepsight.training.setup import prepare

ROUNDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Training images per second.")
    parser.add_argument("--model", default="split-32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="steps a round")
    parser.add_argument("--precision", default="no")
    door = parser.parse_args()
    every = door.steps * door.batch
    flags = f"--model.name {door.model} --training.batch {door.batch} "
    flags += f"--training.images {every * (ROUNDS + 1)} --training.log-every {every} "
    flags += f"--training.precision {door.precision} --data.scenes.size {door.size} {door.size} "
    flags += "--data.scenes.count 1024 --data.scenes.eval-count 1 --training.processes 1 "
    flags += "--training.first-validation 0 --training.validate-every 0 --training.warmup 0 "
    flags += "--training.validation-images 1 --training.checkpoint-every 0"
    config, _ = configuration.load([], flags.split())
    with tempfile.TemporaryDirectory() as folder:
        run = RunWriter(Path(folder))
        run.create(config)
        s = prepare(config, run)
        s.fill("scenes", 1024)
        train(s, run, Console(enabled=False))
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").open()]
    rows = [row for row in lines if row["kind"] == "train"][1:]  # the first round warms up
    rate = statistics.median(row["images_per_s"] for row in rows)
    data = statistics.median(row["data_share"] for row in rows)
    flops = s.training_flops / (s.step * door.batch)  # a picture, with all its tasks
    print(
        f"{door.model} at {door.size} px, batch {door.batch}, {s.device}, "
        f"torch {torch.__version__}: {rate:.1f} images/s, data {data:.1%} of the step, "
        f"{flops * rate / 1e12:.3f} TFLOP/s"
    )


if __name__ == "__main__":
    main()
