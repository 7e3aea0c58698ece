"""Training steps beside their floor, their memory beside its plan, and what recomputing costs.

    OMP_NUM_THREADS=1 python benchmarks/steps.py [--only DiT-S/2] [--json FILE]

Each row is a run of the training loop in a process of its own: a step that warms up, steps that are
timed, and one in which torch's profiler counts what is allocated. Depth on scenes, for DiT of
32 x 32 pixels, which DiT/2 cuts into the 256 tokens that it has of latents at 256 x 256. The floor
is the model's FLOPs by what a product of matrices reaches on this machine in the same precision,
both in processor seconds. With --json, rows of other models stay in the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from stepsight.config import RunConfig, from_dict
from stepsight.report.console import Console
from stepsight.training import profile
from stepsight.training.fit import prepare
from stepsight.training.folder import RunWriter
from stepsight.training.loop import train
from stepsight.training.profile import StepProfile
from stepsight.training.profile.ceiling import matmul_flops
from stepsight.training.profile.run import figures_of
from stepsight.training.progress import Progress
from stepsight.training.spec import RunSpec

WAYS = ("none", "selective", "block")
PRECISIONS = ("float32", "bf16")
MODELS: dict[str, dict[str, Any]] = {  # with settings of training
    "split-32": {"batch": 16},
    "DiT-S/2": {"batch": 8},
    "DiT-S/2-8E2A": {"batch": 8, "optimizer": "adamw"},
    "DiT-B/2": {"batch": 4, "optimizer": "adamw"},
}
NEVER = dict.fromkeys(("first_validation", "validate_every", "checkpoint_every", "log_every"), 0)


def config_of(model: str, **training: Any) -> RunConfig:
    """A run of depth on few scenes, of 64 x 64 pixels for split-32."""
    side = 64 if model.startswith("split") else 32
    scenes = {"size": [side, side], "count": 64, "eval_count": 4}
    settings = {"processes": 1, "images": 10_000} | NEVER | training
    data = {"data": {"scenes": scenes}, "training": settings}
    return from_dict({"model": {"name": model}, "tasks": {"depth": {}}} | data)


def profiled(config: RunConfig, steps: int, warm_up: int, traced: int) -> dict[str, Any]:
    """What `train.py --profile` writes of a run that is not kept (see `profile.run.figures_of`)."""
    with tempfile.TemporaryDirectory() as folder:
        writer, console, progress = RunWriter(Path(folder)), Console(enabled=False), Progress()
        writer.create(config)
        learner, feed = prepare(RunSpec.of(config, writer.path), console)
        trace = writer.path / "profile" / "trace.json"
        found = StepProfile(steps, learner.device, progress, trace, warm_up, traced)
        with profile.working(found):
            train(learner, feed, progress, writer, console)
        clock = time.perf_counter if learner.device.type == "cuda" else time.process_time
        ceiling = matmul_flops(learner.device, learner.precision, clock=clock)
        return figures_of(learner, found, ceiling)


def row_of(model: str, precision: str, way: str, steps: int = 2, **changes: Any) -> dict[str, Any]:
    """Times of one thread, so that processor seconds hold no waiting."""
    torch.set_num_threads(1)
    settings = MODELS[model] | {"precision": precision, "recompute": way} | changes
    found = profiled(config_of(model, **settings), steps, warm_up=1, traced=1)
    seconds, floor = (
        found["step_processor_s"],
        found["flops_per_step"] / found["matmul_flops_per_s"],
    )
    memory = {name: found[name] for name in ("peak_bytes", "planned_bytes")}
    times = {"seconds": seconds, "floor_seconds": floor, "parts": found["parts_processor_s"]}
    return (
        {"model": model, "precision": precision, "recompute": way, **MODELS[model]} | memory | times
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of training steps.")
    parser.add_argument("--only", help="one model")
    parser.add_argument("--json", type=Path, help="keep the rows there")
    door = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    kept = json.loads(door.json.read_text()) if door.json and door.json.is_file() else []
    for model in [door.only] if door.only else MODELS:
        kept = [row for row in kept if row["model"] != model]
        for precision in PRECISIONS:
            for way in WAYS:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    row = pool.submit(row_of, model, precision, way).result()
                kept.append(row)
                print(told(row), flush=True)
                if door.json:
                    door.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def told(row: dict[str, Any]) -> str:
    peak, planned = row["peak_bytes"], row["planned_bytes"]
    case = f"{row['model']:<14}{row['precision']:<9}{row['recompute']:<11}"
    memory = f"{peak / 1e6:9.1f} MB, planned {planned / peak:.3f} of it"
    return f"{case}{memory}; {row['seconds']:6.2f} s a step, floor {row['floor_seconds']:.2f}"


if __name__ == "__main__":
    main()
