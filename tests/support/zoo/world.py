"""The little world that the trees show: a room with a box, seen by a pinhole camera, and the answer
that a tree expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEIGHT, WIDTH = 24, 32
BASELINE = 580 * 0.075  # pixels times metres, of a structured-light camera


class World(NamedTuple):
    """What is true of a picture."""

    picture: np.ndarray  # uint8 "h w 3"
    depth: np.ndarray  # float32 "h w", metres
    flow: np.ndarray  # float32 "h w 2", pixels
    normals: np.ndarray  # float32 "h w 3"
    labels: np.ndarray  # uint8 "h w": 0 wall, 1 floor, 2 box
    modal: np.ndarray  # bool "h w", the visible part of the box
    amodal: np.ndarray


@dataclass
class Expected:
    """What looking at a tree must give.

    truth: by quantity, the values of the samples in the order of their pictures' names, None where
    a sample has none; "h w" or "h w c", NaN (of labels 255) where there is no value.
    """

    truth: dict[str, list[np.ndarray | None]] = field(default_factory=dict)
    pictures: list[np.ndarray] | None = None  # of the samples, uint8 "h w 3"
    seconds: list[np.ndarray] | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()  # patterns of sentences
    refused: str = ""  # pattern of the reason
    splits: tuple[str, ...] = ()
    tolerance: float = 1e-6  # relative
    clean: bool = True  # no problem is found


Tree = Callable[[Path], Expected]
TREES: dict[str, Tree] = {}


def tree(make: Tree) -> Tree:
    """Enter a tree by the name of the function that makes it."""
    assert make.__name__ not in TREES, make.__name__
    TREES[make.__name__] = make
    return make


def world(number: int = 0, height: int = HEIGHT, width: int = WIDTH) -> World:
    """A room: a wall slanting away, a floor, and a box before it that stands on the floor."""
    draw = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    y, x = rows / height, columns / width
    wall = 1 / (0.22 + 0.04 * number % 0.1 + 0.12 * x)
    floor = 1 / np.maximum(0.08 + 0.9 * (y - 0.35), 1e-3)
    depth = np.where((y > 0.35) & (floor < wall), floor, wall)
    labels = np.where((y > 0.35) & (floor < wall), 1, 0)
    left, top = 0.25 + 0.05 * (number % 3), 0.3
    box = (x > left) & (x < left + 0.3) & (y > top) & (y < 0.8)
    front = box & (x < left + 0.2)
    depth, labels = np.where(box, 1 / (0.55 + 0.1 * y), depth), np.where(box, 2, labels)
    shade = (
        np.array([[200, 190, 170], [120, 100, 80], [60, 90, 190]])[labels] / depth[..., None] ** 0.3
    )
    picture = np.clip(shade + draw.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)
    flow = np.stack([3 / depth, 0.5 + 0 * depth], axis=-1)
    facing = np.array([[0.3, 0, -1], [0, -1, -0.2], [0, 0, -1]])
    normals = (facing / np.linalg.norm(facing, axis=1, keepdims=True))[labels]
    float32 = [values.astype(np.float32) for values in (depth, flow, normals)]
    return World(picture, *float32, labels.astype(np.uint8), front, box)


def worlds(count: int = 3, height: int = HEIGHT, width: int = WIDTH) -> list[World]:
    return [world(number, height, width) for number in range(count)]


def measured(depth: np.ndarray) -> np.ndarray:
    """Whole millimetres "h w" as a structured-light camera gives: its disparities are eighths of a
    pixel; some pixels have none."""
    disparity = np.round(8 * BASELINE / depth) / 8
    values = np.round(1000 * BASELINE / np.maximum(disparity, 0.125)).astype(np.uint16)
    values[::5, ::7] = 0
    return values


def metres(stored: np.ndarray, per_metre: float = 1000) -> np.ndarray:
    """Stored whole numbers in metres, NaN where they are 0."""
    return np.where(stored > 0, stored / per_metre, np.nan)


def same(values: np.ndarray) -> np.ndarray:
    return values
