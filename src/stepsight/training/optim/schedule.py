"""The learning rates over a run, by images seen."""

from __future__ import annotations

import math

import torch

from stepsight.training.config import TrainingSettings


def rate(settings: TrainingSettings, images: int) -> float:
    """The factor on every learning rate after `images` images: warm-up, then decay."""
    warm = min(1.0, (images + settings.batch) / settings.warmup) if settings.warmup else 1.0
    done = min(1.0, images / settings.images)
    floor = settings.final_lr
    if settings.decay == "cosine":
        return warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
    if settings.decay == "exponential":
        return warm * floor**done
    return warm


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every group: `factor` times that of its optimizer, and what the
    group asks for itself (`rate_scale`)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.get("rate_scale", 1.0) * optimizer.defaults["lr"] * factor
