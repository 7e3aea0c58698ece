"""What follows from the settings alone: learning rates, averages, gradients, memory."""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from stepsight.averages import HEAVY, decay_at, start_share
from stepsight.doctor.findings import Finding
from stepsight.doctor.patient import Patient
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import rate
from stepsight.training.planning.dry_run import pictures_at_a_time
from stepsight.training.planning.judge import Planner, size
from stepsight.training.planning.memory import memory_of

FEW = 200  # updates below which little is learnt
LONG = 0.3  # share of a run that is a long warm-up
RESERVED = 0.92  # of a device's memory that a run may use


def learning_rate(patient: Patient) -> Finding:
    """The rate at the start, at its peak and at the end; updates and warm-up."""
    training = patient.config.training
    updates = training.images // training.batch
    steps = range(0, updates, max(updates // 500, 1))
    factors = [rate(training, step * training.batch) for step in steps]
    end = rate(training, (updates - 1) * training.batch)
    base = training.lr if training.optimizer == "adamw" else training.muon_lr
    warm = training.warmup / training.batch
    said = (
        f"{updates:,} updates of {training.batch} pictures; {training.optimizer} "
        f"{base * factors[0]:.3g} at the start, {base * max(factors):.3g} at most, "
        f"{base * end:.3g} at the end ({training.decay}); warm-up {warm:.0f} updates, "
        f"{warm / updates:.1%} of the run"
    )
    advice = _rate_advice(training, updates, factors)
    return Finding("learning rate", "warn" if advice else "ok", said, advice)


def _rate_advice(training: TrainingSettings, updates: int, factors: list[float]) -> str:
    if training.warmup > LONG * training.images:
        return (
            f"Warm-up takes {training.warmup / training.images:.0%} of the run: lower "
            "training.warmup, or train longer."
        )
    if max(factors) < 0.9:
        return f"The rate reaches only {max(factors):.0%} of what is set: lower training.warmup."
    if not training.warmup and training.optimizer == "adamw" and training.lr > 5e-4:
        return f"training.lr {training.lr:g} from the first update on: set training.warmup."
    if updates < FEW:
        return f"{updates} updates teach little: raise training.images, or lower training.batch."
    if not training.clip:
        return "Gradients are not clipped: one bad batch can undo hours. Set training.clip 1."
    return ""


def average(patient: Patient) -> Finding:
    """How long the average of weights reaches back, and what is left in it of the start."""
    training = patient.config.training
    updates = max(training.images // training.batch, 1)
    share = start_share(training.ema, updates)
    decay = decay_at(training.ema, updates)  # which has warmed up by then
    half = math.log(0.5) / math.log(decay) if 0 < decay < 1 else 0.0
    said = (
        f"decay {decay:.4g} at the end: half of it is younger than {half:,.0f} updates, "
        f"{half / updates:.1%} of the run; {share:.2%} of the start weights is left in it"
    )
    advice = "Train longer, or score --weights raw." if share > HEAVY else ""
    return Finding("average", "warn" if advice else "ok", said, advice)


def reached(patient: Patient) -> Finding:
    """Every trainable tensor has a gradient, by a backward pass without numbers."""
    with torch.device("meta"):
        net: Any = patient.workload.build().train()
        out = net(*patient.workload.example)
        _tensor(out).float().sum().backward()
    trainable = {name: p for name, p in net.named_parameters() if p.requires_grad}
    left = [name for name, p in trainable.items() if p.grad is None]
    count = sum(p.numel() for p in trainable.values())
    if left:
        said = f"{len(left)} of {len(trainable)} trainable tensors get no gradient: {left[0]}"
        return Finding("gradients", "fail", said, "Remove them from the model, or use them.")
    said = f"all {len(trainable)} trainable tensors ({count / 1e6:.2f} M) are reached"
    return Finding("gradients", "ok", said)


def _tensor(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out.sample


def memory(patient: Patient) -> Finding:
    """Whether a device of this machine has room for a step."""
    config, cuda = patient.config, torch.cuda.is_available()
    world = max(config.training.processes, patient.processes, 1)
    kind = "cuda" if cuda else "cpu"
    pictures = pictures_at_a_time(config.training, world)
    needed = memory_of(config, patient.tasks, world, pictures, kind, patient.workload).total
    local = 1 if cuda else min(world, len(os.sched_getaffinity(0)))  # processes that share it
    room = int(RESERVED * (torch.cuda.mem_get_info()[0] if cuda else available() / local))
    where = torch.cuda.get_device_name() if cuda else "the free memory of this machine"
    said = f"{size(needed)} for {pictures} pictures at a time, of {size(room)}: {where}"
    if needed <= room:
        return Finding("memory", "ok", said)
    planner = Planner(config, patient.workload, world, room)
    ways = planner.alternatives(planner.chosen())
    fitting = next((way for way in ways if way.memory.total <= room), None)
    advice = "No way of sharing fits: more devices, or a smaller model or size."
    if fitting is not None:
        advice = (
            f"Set training.sharding {fitting.sharding}, training.recompute {fitting.recompute}, "
            f"training.micro_batch {fitting.micro_batch}."
        )
    return Finding("memory", "fail" if fitting is None else "warn", said, advice)


def available() -> int:
    """Bytes of memory that programs may still take."""
    with open("/proc/meminfo") as file:
        rows = dict(line.split(":") for line in file)
    return 1024 * int(rows["MemAvailable"].split()[0])
