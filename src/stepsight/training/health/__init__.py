"""The health of a run: which steps are applied, and which weights are fit to be published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from torch import Tensor

from stepsight.training.config import TrainingSettings

WINDOW = 64  # healthy steps whose gradient norms make the usual one


def fault_of(loss: float, norm: float, settings: TrainingSettings, norms: Sequence[float]) -> str:
    """Why a step is not to be applied; "" if it is. norms: of healthy steps before it."""
    if not math.isfinite(loss):
        return f"loss is {loss}"
    if not math.isfinite(norm):
        return f"gradient norm is {norm}"
    if settings.spike and len(norms) >= WINDOW // 4 and norm > settings.spike * median(norms):
        return f"gradient norm is {norm:.3g}, {norm / median(norms):.3g} times the recent median"
    return ""


def all_finite(values: Iterable[Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in values if value.is_floating_point())
