"""Records of runs of several sizes and amounts of data, whose losses follow a known law."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from stepsight.scaling.records import ScalingRecord

SIZES = (100_000, 1_000_000, 10_000_000)
IMAGES = (3_000, 30_000, 300_000)
TRUTH = {"E": 0.05, "A": 60.0, "alpha": 0.5, "B": 20.0, "beta": 0.45}
BEFORE = "2026-01-01T00:00:00+00:00"
Law = Callable[[float, float], float]


def law(n: float, d: float) -> float:
    t = TRUTH
    return t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * d ** -t["beta"]


def record(n: int, d: int, loss: float | None, value: float | None, **changed: Any):
    fields: dict[str, Any] = dict(
        run=f"{n}-{d}",
        config=f"{n}-{d}",
        revision="",
        seed=0,
        model=f"dit-{n}",
        params_total=n,
        params_active=n,
        training_flops=6.0 * n * d,
        images_seen=d,
        task="depth",
        dataset="scenes",
        protocol="affine@1",
        sampler="ddim",
        nfe=4,
        members=2,
        inference_flops=1e9,
        metric="abs_rel",
        value=value,
        images=64,
        loss=loss,
        samples=1000,
        size="16x16",
        time=BEFORE,
    )
    return ScalingRecord(**(fields | changed))


def grid(loss_of: Law = law, noise: float = 0.003, seed: int = 0, **changed: Any):
    """A record for each size and amount; the metric is 0.8 loss - 0.01."""
    rng = np.random.default_rng(seed)
    found = []
    for n in SIZES:
        for d in IMAGES:
            loss = loss_of(n, d) * math.exp(noise * rng.standard_normal())
            found.append(record(n, d, loss, 0.8 * loss - 0.01, **changed))
    return found


def scattered(seed: int) -> list[ScalingRecord]:
    """Losses that training does not change."""
    return grid(lambda n, d: 0.3, noise=0.1, seed=seed)
