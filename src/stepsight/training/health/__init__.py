"""The health of a run: which steps are applied, and which weights are fit to be published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from torch import Tensor

from stepsight.training.config import TrainingSettings

WINDOW = 64  # healthy steps whose gradient norms make the usual one


def largest(settings: TrainingSettings, norms: Sequence[float]) -> float:
    """The largest gradient norm that is no spike. norms: of recent healthy steps."""
    known = settings.spike > 0 and len(norms) >= WINDOW // 4
    return settings.spike * median(norms) if known else math.inf


def is_healthy(loss: Tensor, norm: Tensor, limit: float) -> Tensor:
    """Whether a step is to be applied, a bool that stays on the device: both are numbers, and the
    norm is not above the limit."""
    return loss.isfinite() & norm.isfinite() & (norm <= limit)


def fault_of(loss: float, norm: float, norms: Sequence[float]) -> str:
    """Why a step was not applied. norms: of healthy steps before it."""
    if not math.isfinite(loss):
        return f"loss is {loss}"
    if not math.isfinite(norm):
        return f"gradient norm is {norm}"
    return f"gradient norm is {norm:.3g}, {norm / median(norms):.3g} times the recent median"


def all_finite(values: Iterable[Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in values if value.is_floating_point())
