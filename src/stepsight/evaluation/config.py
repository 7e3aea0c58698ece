"""Settings of evaluation and sweep (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationSettings:
    """What the final evaluation, `evaluate.py` and the sweep run unless told otherwise."""

    nfe: int = 4  # model calls a member
    members: int = 4
    batch: int = 16  # images at a time, and rows (images x members) a forward pass
    images: int = 0  # of each source; 0 = its whole evaluation split
    sweep: bool = True  # after training
    sweep_nfe: tuple[int, ...] = (1, 2, 4, 8)
    sweep_members: tuple[int, ...] = (1, 2, 4, 8)
    sweep_images: int = 64
    seed: int = 0  # of the initial noise
