"""A U-Net of Stable Diffusion 2's size beside diffusers' MarigoldDepthPipeline: same weights, same
starts, members compared first (`stepsight.bench.cases.ensemble`)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from gpu.row import Row
from gpu.timing import device_of
from stepsight.bench.cases.ensemble import SD2, TINY, TwoPipelines
from stepsight.bench.peers.marigold import write_folder
from stepsight.bench.protocol import in_turns
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write

GAIN = 3.0  # over diffusers in bf16 at its default batch, 1


def run(size: str) -> Iterator[Row]:
    device, tiny = device_of(size), size == "tiny"
    torch.manual_seed(0)
    unet, vae = (TINY, (8, 8, 8, 8)) if tiny else (SD2, (128, 256, 512, 512))
    side, calls, members = (32, 2, 2) if tiny else (512, 10, 10)
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(Path(name, "published"), unet, vae)
        write(import_published(folder), Path(name, "run"))
        both = TwoPipelines(folder, Path(name, "run"), (side, side), calls, members, str(device))
        rounds, warm = (1, 0) if tiny else (2, 1)
        took = in_turns(both.contest(merged=True), rounds, warm, time.perf_counter, str(device))
    spent = {side: median(values) for side, values in took.items()}
    ours, what = spent["ours, bf16"], f"{calls} x {members} at {side} px"
    for name, value in spent.items():
        target = GAIN if name == "diffusers, bf16, batch 1" and not tiny else None
        gain = f"times as fast as {name}"
        if name.startswith("diffusers"):
            yield Row(f"{what}, {gain}", value / ours, "", target, note=f"{value:.2f} s")
        else:
            yield Row(f"{what}, {name}", value, "s")
