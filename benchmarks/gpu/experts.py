"""A mixture of experts in training: its FLOP/s as a share of the dense network's. Of experts those
are counted that a token passes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpu.latents import config_of, figures
from gpu.row import Row

SHARE = 0.85


def run(size: str) -> Iterator[Row]:
    tiny = size == "tiny"
    side, batch = (64, 4) if tiny else (256, 256)
    for dense in ("DiT-32x2/2",) if tiny else ("DiT-B/2", "DiT-L/2"):
        with tempfile.TemporaryDirectory() as name:
            found = [
                figures(config_of(model, side, batch, Path(name)), size)
                for model in (dense, f"{dense}-8E2A")
            ]
        rates = [one["flops_per_s"] for one in found]
        told = f"MFU {found[1]['mfu']:.3f} and {found[0]['mfu']:.3f}"
        target = None if tiny else SHARE
        yield Row(f"{dense}-8E2A, of {dense}", rates[1] / rates[0], "", target, note=told)
