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

from stepsight.config import from_dict
from stepsight.report.console import Console
from stepsight.training.fit import prepare
from stepsight.training.folder import RunWriter
from stepsight.training.loop import train
from stepsight.training.progress import Progress
from stepsight.training.spec import RunSpec

ROUNDS = 4
SAMPLES = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Training images per second.")
    parser.add_argument("--model", default="split-32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="steps per round")
    parser.add_argument("--precision", default="no")
    args = parser.parse_args()
    every = args.steps * args.batch
    settings = {
        "batch": args.batch,
        "images": every * (ROUNDS + 1),
        "log_every": every,
        "precision": args.precision,
        "processes": 1,
        "warmup": 0,
        "validation_images": 1,
    }
    settings |= dict.fromkeys(("first_validation", "validate_every", "checkpoint_every"), 0)
    scenes = {"size": [args.size, args.size], "count": SAMPLES, "eval_count": 1}
    model, data = {"name": args.model}, {"scenes": scenes}
    config = from_dict({"model": model, "data": data, "training": settings})
    with tempfile.TemporaryDirectory() as folder:
        writer, console = RunWriter(Path(folder)), Console(enabled=False)
        writer.create(config)
        learner, feed = prepare(RunSpec.of(config, writer.path), console)
        progress = Progress()
        feed.fill("scenes", SAMPLES)
        train(learner, feed, progress, writer, console)
        lines = [json.loads(line) for line in (writer.path / "metrics.jsonl").open()]
    rows = [row for row in lines if row["kind"] == "train"][1:]  # the first round warms up
    rate = statistics.median(row["images_per_s"] for row in rows)
    waiting = statistics.median(row["data_share"] for row in rows)
    flops = progress.training_flops / progress.images_seen  # per picture, with all its tasks
    print(
        f"{args.model} at {args.size} px, batch {args.batch}, {learner.device}, "
        f"torch {torch.__version__}: {rate:.1f} images/s, data {waiting:.1%} of the step, "
        f"{flops * rate / 1e12:.3f} TFLOP/s"
    )


if __name__ == "__main__":
    main()
