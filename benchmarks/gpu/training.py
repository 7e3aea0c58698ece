"""Training steps at 256 x 256 pixels from cached latents: utilisation, data, memory, compiling."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gpu.latents import config_of, figures
from gpu.row import Row

TARGETS = {"DiT-S/2": 0.25, "DiT-B/2": 0.40, "DiT-L/2": 0.50, "DiT-XL/2": 0.50}  # of the ceiling
NOT_COMPILED = ("DiT-B/2", "DiT-XL/2")
GAIN = 1.4  # over the same step not compiled
STALL = 0.02  # of the step waits for cached latents


def run(size: str) -> Iterator[Row]:
    tiny = size == "tiny"
    models: dict[str, Any] = {"DiT-32x2/2": None} if tiny else TARGETS
    side, batch = (64, 4) if tiny else (256, 256)
    with tempfile.TemporaryDirectory() as name:
        rates, peaks = {}, {}
        for model, target in models.items():
            found = figures(config_of(model, side, batch, Path(name)), size)
            rates[model], peaks[model] = found["images_per_s"], found["peak_bytes"]
            yield Row(f"{model}, MFU", found["mfu"], "", target, note=_told(found))
            share = found["parts_s"]["data wait"] / found["step_s"]
            yield Row(
                f"{model}, waits for data", share, "of the step", None if tiny else STALL, most=True
            )
            planned = found["planned_over_peak"]
            yield Row(f"{model}, memory planned", planned, "of the peak", note=_memory(found))
        for model in models if tiny else NOT_COMPILED:
            with torch.compiler.set_stance("force_eager"):
                found = figures(config_of(model, side, batch, Path(name)), size)
            gain = rates[model] / found["images_per_s"]
            yield Row(f"{model}, times the step not compiled", gain, "", None if tiny else GAIN)
        for way in ("selective", "block"):
            model = "DiT-32x2/2" if tiny else "DiT-B/2"
            found = figures(config_of(model, side, batch, Path(name), recompute=way), size)
            time, memory = rates[model] / found["images_per_s"], found["peak_bytes"] / peaks[model]
            yield Row(
                f"{model}, recompute {way}, memory", memory, "of without", note=_memory(found)
            )
            yield Row(f"{model}, recompute {way}, time", time, "of without")
        model = next(reversed(models))
        found = figures(config_of(model, side, batch, Path(name), optimizer="muon"), size)
        share = found["parts_s"]["clip, optimizer"] / found["step_s"]
        yield Row(f"{model} with Muon, optimizer", share, "of the step", note=_told(found))


def _told(found: dict[str, Any]) -> str:
    parts = (f"{name} {1e3 * value:.1f}" for name, value in found["parts_s"].items() if value)
    return (
        f"{found['images_per_s']:.0f} images/s, {1e3 * found['step_s']:.1f} ms: {', '.join(parts)}"
    )


def _memory(found: dict[str, Any]) -> str:
    return f"{found['planned_bytes'] / 1e9:.2f} of {found['peak_bytes'] / 1e9:.2f} GB"
