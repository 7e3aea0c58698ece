"""Settings of evaluation and sweep (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluationSettings:
    """What the final evaluation, `evaluate.py` and the sweep run by default."""

    nfe: int = 4  # model calls per member
    members: int = 1  # answers that are merged
    temperature: float | None = None  # of the start noise; None: 0 for one member, 1 for several
    views: Literal["none", "mirror", "mirror+shift"] = "mirror"  # what further calls see
    batch: int = 16  # images at a time, and rows (images x members) per forward pass
    images: int = 0  # of each source; 0 = its whole evaluation split
    sweep: bool = True  # after training
    sweep_nfe: tuple[int, ...] = (1, 2, 4, 8)  # model calls per member that the sweep tries
    sweep_members: tuple[int, ...] = (1, 2, 4, 8)  # members that the sweep tries
    sweep_temperatures: tuple[float, ...] = (0.0, 1.0)  # of the start noise that the sweep tries
    sweep_views: tuple[str, ...] = ("none", "mirror")  # of one member that the sweep tries
    sweep_images: int = 80  # of each source; 0 = its whole evaluation split
    tuning_images: int = 64  # that settings and calibration are chosen on after training; 0: none
    seed: int = 0  # of the initial noise
