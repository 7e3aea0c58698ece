"""The average of weights that is evaluated: how its decay warms up, and what is left in it of the
weights that a run began with."""

from __future__ import annotations

import math
from typing import Literal

Weights = Literal["ema", "raw"]  # those averaged, or those being trained
HEAVY = 0.01  # share of the start weights that is worth a warning


def decay_at(decay: float, updates: int) -> float:
    """The decay of an update that `updates` came before: (1 + n) / (10 + n), up to `decay`, so that
    an early average is one of weights that were trained."""
    return min(decay, (1 + updates) / (10 + updates))


def start_share(decay: float, updates: int, warmup: bool = True) -> float:
    """The weight that the start has in an average after so many updates: the product of the decays.

    warmup: whether they warmed up as `decay_at` does, else all are `decay`.
    """
    warm = 0
    if warmup:  # before n = (10 decay - 1) / (1 - decay) the ratio is the smaller
        warm = updates if decay >= 1 else min(updates, math.ceil((10 * decay - 1) / (1 - decay)))
        warm = max(warm, 0)
    # the product of (1 + n) / (10 + n) over n < warm is warm! 9! / (warm + 9)!
    ratios = math.lgamma(warm + 1) + math.lgamma(10) - math.lgamma(warm + 10)
    return math.exp(ratios) * decay ** (updates - warm)
