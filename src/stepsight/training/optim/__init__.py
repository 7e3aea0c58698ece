"""Optimisation: Muon for matrices, AdamW for the rest, learning rate by images seen, EMA."""

from __future__ import annotations

from stepsight.training.optim.ema import EMA
from stepsight.training.optim.groups import build_optimizers, is_matrix
from stepsight.training.optim.muon import Muon, orthogonalise, shared_out
from stepsight.training.optim.schedule import rate, set_rate
from stepsight.training.optim.state import load_optimizers, pack_optimizers, unpack_optimizers

__all__ = [
    "EMA",
    "Muon",
    "build_optimizers",
    "is_matrix",
    "load_optimizers",
    "orthogonalise",
    "pack_optimizers",
    "rate",
    "set_rate",
    "shared_out",
    "unpack_optimizers",
]
