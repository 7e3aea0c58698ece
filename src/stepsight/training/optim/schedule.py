"""The learning rates over a run, by images seen."""

from __future__ import annotations

import math

import torch

from stepsight.training.config import TrainingSettings


def rate(settings: TrainingSettings, images: int) -> float:
    """The factor on every learning rate after `images` images: warm-up, then decay.

    "wsd" (warm-up, stable, decay) falls by 1 - sqrt at the end, after Hägele et al. 2024
    (arXiv:2405.18392): before that, the rates of runs of all lengths are the same.
    """
    warm = min(1.0, (images + settings.batch) / settings.warmup) if settings.warmup else 1.0
    done = min(1.0, images / settings.images)
    floor = settings.final_lr
    if settings.decay == "cosine":
        return warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
    if settings.decay == "exponential":
        return warm * floor**done
    if settings.decay == "wsd":
        over = max(0.0, 1 - (1 - done) / settings.decay_share)
        return warm * (floor + (1 - floor) * (1 - math.sqrt(over)))
    return warm


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every group: `factor` times that of its optimizer, and what the
    group asks for itself (`rate_scale`)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.get("rate_scale", 1.0) * optimizer.defaults["lr"] * factor
