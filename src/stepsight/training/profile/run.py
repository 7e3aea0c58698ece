"""`train.py --profile N`: train a few steps, measure them, write what was found and say it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from stepsight import distributed
from stepsight.errors import UserError
from stepsight.report.console import Console
from stepsight.training import profile
from stepsight.training.config import TrainingSettings
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.learner import Learner
from stepsight.training.loop import train
from stepsight.training.planning.judge import size
from stepsight.training.profile import CHECKPOINT, PARTS, TRACED, WARM_UP, StepProfile
from stepsight.training.profile.ceiling import matmul_flops
from stepsight.training.profile.memory import allocated, held, planned
from stepsight.training.progress import Progress

REST = "rest"
FOLDER, FIGURES, TRACE = "profile", "profile.json", "trace.json"


def enough_steps(settings: TrainingSettings, step: int, steps: int) -> None:
    """Raise UserError unless a run that stands at a step has so many steps to measure."""
    left, more = settings.images // settings.batch - step, WARM_UP + TRACED
    if steps + more > left:
        raise UserError(
            f"--profile {steps}: {WARM_UP} steps of warm-up, {steps} that are measured and "
            f"{TRACED} that are traced make {steps + more}, the run has {left} left. "
            f"Ask for fewer, or for more pictures (--training.images)."
        )


def profiled(
    learner: Learner,
    feed: Feed,
    progress: Progress,
    writer: RunWriter,
    console: Console,
    steps: int,
) -> Path:
    """Train so many steps after a warm-up and measure them; the folder of what was found.

    The trace is of a few steps more, so that making it slows down none that is measured. Every
    process measures itself, the first one writes and speaks.
    """
    folder = writer.path / FOLDER
    trace = folder / (TRACE if writer.main else f"{distributed.rank()}-{TRACE}")
    found = StepProfile(steps, learner.device, progress, trace)
    with profile.working(found):
        train(learner, feed, progress, writer, console)  # which saves, last
    ceiling = matmul_flops(learner.device, learner.precision)  # of all processes at a time
    distributed.barrier()
    if writer.main:
        figures = figures_of(learner, found, ceiling)
        (folder / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        console.header(lines(figures))
    return folder


def figures_of(learner: Learner, found: StepProfile, ceiling: float) -> dict[str, Any]:
    """What was measured, of one process: seconds a step by part, speed, memory.

    A checkpoint counts with its share: one is due every `training.checkpoint_every` pictures.
    ceiling: FLOP/s of a product of matrices on this device.
    """
    settings, world = learner.settings, distributed.world()
    if found.device.type == "cuda":
        torch.cuda.synchronize()
    seconds, processor = (x / found.steps for x in found.whole[1].seconds(found.whole[0]))
    parts = {name: [0.0, 0.0] for name in PARTS}
    for name, spans in found.spans.items():
        each = [ended.seconds(began) for began, ended in spans]
        if each:
            calls = len(each) / found.steps if name != CHECKPOINT else _saves(settings)
            parts[name] = [calls * fmean(column) for column in zip(*each)]
    known = [sum(column) for column in zip(*(x for n, x in parts.items() if n != CHECKPOINT))]
    parts[REST] = [seconds - known[0], processor - known[1]]
    flops = (found.flops[1] - found.flops[0]) / found.steps / world
    memory = planned(learner)
    peak = found.peak or held(learner, memory) + allocated(found.trace)
    saved = [ended.seconds(began)[0] for began, ended in found.spans[CHECKPOINT]] or [0.0]
    return {
        "device": _name(found.device),
        "torch": torch.__version__,
        "precision": learner.precision,
        "processes": world,
        "threads": torch.get_num_threads(),
        "model": learner.objective.config.model.name,
        "batch": settings.batch,
        "steps": found.steps,
        "step_s": seconds,
        "step_processor_s": processor,
        "parts_s": {name: value[0] for name, value in parts.items()},
        "parts_processor_s": {name: value[1] for name, value in parts.items()},
        "checkpoint_s": fmean(saved),
        "images_per_s": settings.batch / seconds,
        "flops_per_step": flops,
        "flops_per_s": flops / seconds,
        "matmul_flops_per_s": ceiling,
        "mfu": flops / seconds / ceiling,
        "peak_bytes": peak,
        "planned_bytes": memory.total,
        "planned_over_peak": memory.total / peak,
    }


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield (
        f"profile  {figures['steps']} steps of {figures['batch']} pictures, {figures['model']}, "
        f"{figures['precision']}, {figures['device']}, {figures['processes']} processes"
    )
    yield f"  {'':<18}{'ms a step':>12}{'share':>9}{'processor ms':>15}"
    parts, whole = figures["parts_s"], sum(figures["parts_s"].values())
    for name, seconds in parts.items():
        busy = figures["parts_processor_s"][name]
        note = f"   {1e3 * figures['checkpoint_s']:.0f} ms each" if name == CHECKPOINT else ""
        yield f"  {name:<18}{1e3 * seconds:>12.2f}{seconds / whole:>9.1%}{1e3 * busy:>15.2f}{note}"
    yield f"  {'all':<18}{1e3 * whole:>12.2f}{1:>9.1%}"
    yield (
        f"speed    {figures['images_per_s']:.1f} images/s, "
        f"{figures['flops_per_s'] / 1e12:.4g} TFLOP/s of the model a process: MFU "
        f"{figures['mfu']:.1%} of {figures['matmul_flops_per_s'] / 1e12:.4g}, a product of matrices"
    )
    peak, memory = size(figures["peak_bytes"]), size(figures["planned_bytes"])
    yield f"memory   {peak} at most, planned {memory}: {figures['planned_over_peak']:.2f} of it"


def _saves(settings: TrainingSettings) -> float:
    """Checkpoints a step, in the long run."""
    return settings.batch / settings.checkpoint_every if settings.checkpoint_every else 0.0


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
