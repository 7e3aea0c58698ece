"""Settings of the backbone and the table of sizes (standard library only).

A size is a row: the registry name, and the numbers that define the network. `parse` turns a name
such as `DiT-S/2` or `hourglass-64` into its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepsight.errors import UserError, suggest


@dataclass(frozen=True)
class ModelSettings:
    """Which backbone, and the few choices that are not its size."""

    name: str = "hourglass-64"
    input: Literal["shared", "per_task"] = "shared"  # first convolution: one, or one a task
    gate_init: float = 0.7  # residual gates at the start; 0 is adaLN-Zero
    qk_norm: bool = False  # DiT only


@dataclass(frozen=True)
class DiTSize:
    """A diffusion transformer (Peebles & Xie 2023): width, blocks, heads, patch side."""

    width: int
    depth: int
    heads: int
    patch: int = 2


@dataclass(frozen=True)
class HourglassSize:
    """Convolutional levels (full resolution first), then a transformer trunk below them."""

    channels: tuple[int, ...]
    width: int
    depth: int
    heads: int
    down: tuple[int, ...]  # residual convolutions a level on the way down
    up: tuple[int, ...]  # and on the way up


# name -> (width, depth, heads); the patch side follows the slash in the name.
# S to XL: DiT paper, table 1. a1 to a6: the ladder of "Scaling Properties of Diffusion Models for
# Perceptual Tasks" (a2-a5 as in its released code, a1 and a6 inferred from its parameter counts).
DIT: dict[str, tuple[int, int, int]] = {
    "DiT-Ti": (64, 3, 2),
    "DiT-Mi": (128, 4, 4),
    "DiT-S": (384, 12, 6),
    "DiT-B": (768, 12, 12),
    "DiT-L": (1024, 24, 16),
    "DiT-XL": (1152, 28, 16),
    "DiT-a1": (256, 12, 16),
    "DiT-a2": (512, 16, 16),
    "DiT-a3": (768, 20, 16),
    "DiT-a4": (1024, 24, 16),
    "DiT-a5": (1536, 28, 16),
    "DiT-a6": (1792, 32, 16),
}
PATCHES = (2, 4, 8)

HOURGLASS: dict[str, HourglassSize] = {
    "hourglass-32": HourglassSize((8, 16, 24), 32, 2, 1, down=(0, 0, 1), up=(1, 1, 1)),
    "hourglass-64": HourglassSize((12, 24, 48), 64, 3, 2, down=(0, 0, 1), up=(1, 1, 1)),
    "hourglass-128": HourglassSize((16, 32, 64), 128, 4, 4, down=(0, 1, 1), up=(1, 1, 1)),
    "hourglass-256": HourglassSize((32, 64, 128), 256, 8, 4, down=(1, 1, 2), up=(1, 1, 2)),
}

NAMES = tuple(HOURGLASS) + tuple(f"{base}/{patch}" for base in DIT for patch in PATCHES)


def parse(name: str) -> DiTSize | HourglassSize:
    """The row of `name`. Raises `UserError` naming the nearest known name."""
    if name in HOURGLASS:
        return HOURGLASS[name]
    if name in NAMES:
        base, _, patch = name.partition("/")
        return DiTSize(*DIT[base], patch=int(patch))
    raise UserError(f"model.name '{name}' is unknown.{suggest(name, NAMES)}")
