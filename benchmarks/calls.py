"""What a backbone costs once per image and per further call, in FLOPs and milliseconds.

    OMP_NUM_THREADS=1 uv run python benchmarks/calls.py --checkpoint runs/default-0001

Milliseconds are medians over repeats of a batch, per image; encoding includes what the task makes
of its inputs (for flow the cost volumes).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.evaluation.records import cost_of
from stepsight.evaluation.sources import open_sources, pick_sources
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import ModelInputs


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of `work`, after one call that warms up."""
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took[1:])


@torch.inference_mode()
def measured(pipeline: DensePipeline, batch: int, repeats: int) -> list[dict[str, str]]:
    """One row per task."""
    needs = frozenset(task.target_field for task in pipeline.tasks.values())
    sources = open_sources(pipeline.config, needs, "eval")
    chosen = pick_sources(pipeline, sources, list(pipeline.tasks))
    return [_row(pipeline, task, source, batch, repeats) for task, source in chosen.items()]


def _row(
    pipeline: DensePipeline, task: str, source: Source, batch: int, repeats: int
) -> dict[str, str]:
    at_work = pipeline.working(collate(source.samples(range(batch))), task)

    def encode() -> ModelInputs:
        coded = pipeline.code(at_work, task)
        coded.encoded = pipeline.net.encode(coded.cond, coded.label, coded.features)  # type: ignore[operator]
        return coded

    coded = encode()
    x = torch.zeros(len(coded.label), pipeline.layout.target, *coded.cond.shape[-2:])
    times, cost = torch.full((len(x),), 0.5), cost_of(pipeline, task)
    once = milliseconds(encode, repeats) / batch
    call = milliseconds(lambda: pipeline.diffusion.answer(pipeline.net, coded, x, times), repeats)
    return {
        "task": task,
        "encode_mflop": f"{cost.encode / 1e6:.0f}",
        "call_mflop": f"{cost.call / 1e6:.0f}",
        "encode_ms": f"{once:.2f}",
        "call_ms": f"{call / batch:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    pipeline = DensePipeline.from_pretrained(args.checkpoint, "cpu")
    rows = measured(pipeline, args.batch, args.repeats)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
