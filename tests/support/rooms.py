"""A user's own folder, with some truth on some of its pictures, and flags of a tiny run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
FLAGS = [
    "--model.name=split-8",
    "--training.images=16",
    "--training.batch=8",
    "--training.log_every=8",
    "--training.validation_images=4",
    "--training.processes=1",
    "--training.evaluate=False",
    "--evaluation.nfe=1",
    "--data.folder.depth_unit=mm",
    "--data.folder.size",
    "16",
    "24",
]


def room(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of a wall with a box before it, its depth in millimetres, and its labels."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    top, left = rng.integers(2, 10), rng.integers(2, 16)
    box = (rows >= top) & (rows < top + 10) & (columns >= left) & (columns < left + 12)
    depth = np.where(box, 900 + 3 * rows, 2500 + 7 * columns + rng.integers(0, 9))
    picture = np.stack([60 + 4 * rows, 90 + 3 * columns, np.where(box, 220, 40)], axis=-1)
    noise = rng.integers(0, 12, picture.shape)
    return (picture + noise).astype(np.uint8), depth.astype(np.uint16), box.astype(np.uint8)


def write_rooms(root: Path) -> Path:
    """`images`, 20 of them; `depth` of every other, in millimetres; `labels` of all."""
    for folder in ("images", "depth", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(20):
        picture, depth, labels = room(number)
        Image.fromarray(picture).save(root / f"images/{number:04}.png")
        Image.fromarray(labels).save(root / f"labels/{number:04}.png")
        if number % 2 == 0:
            Image.fromarray(depth).save(root / f"depth/{number:04}.png")
    return root
