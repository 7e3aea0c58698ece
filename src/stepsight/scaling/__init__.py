"""Scaling records and fits; nothing here imports torch.

from stepsight.scaling import fit
law = fit("chinchilla", {"params": n, "tokens": d, "loss": loss}, intervals="profile")
law.forecast({"params": 1e9, "tokens": 1e11})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsight.scaling.laws.columns import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Any:
    if name == "fit":  # imported when it is first used
        return import_module("stepsight.scaling.laws.columns").fit
    raise AttributeError(f"module 'stepsight.scaling' has no attribute '{name}'")
