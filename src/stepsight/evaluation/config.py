"""Settings of evaluation and sweep (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluationSettings:
    """What the final evaluation, `evaluate.py` and the sweep run unless told otherwise."""

    nfe: int = 4  # model calls a member
    members: int = 1
    temperature: float | None = None  # of the start noise; None: 0 for one member, 1 for several
    views: Literal["none", "mirror", "mirror+shift"] = "mirror"
    batch: int = 16  # images at a time, and rows (images x members) a forward pass
    images: int = 0  # of each source; 0 = its whole evaluation split
    sweep: bool = True  # after training
    sweep_nfe: tuple[int, ...] = (1, 2, 4, 8)
    sweep_members: tuple[int, ...] = (1, 2, 4, 8)
    sweep_temperatures: tuple[float, ...] = (0.0, 1.0)
    sweep_views: tuple[str, ...] = ("none", "mirror")
    sweep_images: int = 80
    tuning_images: int = 64  # that settings and calibration are chosen on after training; 0: none
    seed: int = 0  # of the initial noise
