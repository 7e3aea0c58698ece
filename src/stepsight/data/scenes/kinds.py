"""The shapes and classes of the worlds.

Every shape is a unit shape under an affine map and belongs to one of two families: round (a quadric
of revolution cut by two caps) or a block (the cube). y points down, so things rest on y = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = ("floor", "ceiling", "wall", "ellipsoid", "box", "panel", "cylinder")
THINGS = CLASSES[3:]  # of objects
TYPES = tuple(f"{place}, {thing}" for place in ("indoors", "outdoors") for thing in THINGS)
FACE_LABELS = (0, 1, 2, 2, 2, 2)  # floor, ceiling (outdoors: sky) and the four walls of a room


@dataclass(frozen=True)
class Kind:
    """{x^2 + z^2 + a y^2 + b y + c <= 0, |y| <= cap}, or {|x|, |y|, |z| <= 1} without a quadric."""

    label: str  # one of CLASSES
    quadric: tuple[float, float, float] | None  # a, b, c
    smallest: tuple[float, float, float]  # half extents in metres
    largest: tuple[float, float, float]
    cap: float = 1.0  # where the quadric closes by itself, caps stay clear of it


KINDS: dict[str, Kind] = {
    "ellipsoid": Kind("ellipsoid", (1, 0, -1), (0.3, 0.3, 0.3), (0.75, 0.75, 0.75), cap=1.5),
    "dome": Kind("ellipsoid", (0.25, -0.5, -0.75), (0.35, 0.3, 0.35), (0.9, 0.7, 0.9)),
    "cylinder": Kind("cylinder", (0, 0, -1), (0.25, 0.3, 0.25), (0.65, 0.95, 0.65)),
    "cone": Kind("cylinder", (-0.25, -0.5, -0.25), (0.4, 0.4, 0.4), (0.8, 1.0, 0.8)),
    "frustum": Kind("cylinder", (-0.0625, -0.375, -0.5625), (0.35, 0.3, 0.35), (0.7, 0.9, 0.7)),
    "box": Kind("box", None, (0.25, 0.25, 0.25), (0.7, 0.9, 0.7)),
    "panel": Kind("panel", None, (0.35, 0.5, 0.02), (1.1, 1.1, 0.04)),
    "pole": Kind("cylinder", (0, 0, -1), (0.025, 0.5, 0.025), (0.06, 1.1, 0.06)),
}
NAMES = tuple(KINDS)

# The table by columns, indexed with an array of kinds.
LABEL = np.array([CLASSES.index(kind.label) for kind in KINDS.values()])
ROUND = np.array([kind.quadric is not None for kind in KINDS.values()])
QUADRIC = np.array([kind.quadric or (0, 0, 0) for kind in KINDS.values()], dtype=np.float64)
CAP = np.array([kind.cap for kind in KINDS.values()])
SMALLEST = np.array([kind.smallest for kind in KINDS.values()])
LARGEST = np.array([kind.largest for kind in KINDS.values()])
