"""Trees of flow and normals in the containers and units that people use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import kitti_flow, npy, pfm, pieh, png
from zoo.world import Expected, same, tree, worlds

Write = Callable[[Path, np.ndarray], Any]


def flows(root: Path, write: Write, suffix: str, truth=same, count: int = 3, **more) -> Expected:
    """Consecutive frames, and flow from each to the next; the last has none."""
    made = worlds(count)
    for number, one in enumerate(made):
        png(root / f"frames/{number:04}.png", one.picture)
        if number + 1 < count:
            write(root / f"flow/{number:04}{suffix}", one.flow)
    pictures = [one.picture for one in made]
    truths = {"flow": [truth(one.flow) for one in made[:-1]]}
    return Expected(truths, pictures[:-1], pictures[1:], **more)


@tree
def flow_between_frames(root):
    return flows(root, pieh, ".flo")


@tree
def flow_as_an_array(root):
    return flows(root, npy, ".npy")


@tree
def flow_with_channels_first(root):
    return flows(root, lambda path, f: npy(path, f.transpose(2, 0, 1)), ".npy")


@tree
def flow_as_pfm(root):
    return flows(root, lambda p, f: pfm(p, np.dstack([f, f[..., 0] * 0])), ".pfm")


@tree
def flow_of_unknown_unit(root):
    flows(root, lambda path, f: npy(path, f / np.float32([32, 24])), ".npy")
    return Expected(refused=r"--flow-unit pixels, or normalised")


@tree
def flow_in_shares_of_the_picture(root):
    answers = {"flow_unit": "normalised"}
    return flows(root, lambda p, f: npy(p, f / np.float32([32, 24])), ".npy", answers=answers)


@tree
def flow_of_pairs(root):
    made = worlds(4)
    for number in (0, 1):
        png(root / f"data/{number:05}_img1.png", made[2 * number].picture)
        png(root / f"data/{number:05}_img2.png", made[2 * number + 1].picture)
        pieh(root / f"data/{number:05}_flow.flo", made[2 * number].flow)
    pictures = [one.picture for one in made]
    return Expected({"flow": [made[0].flow, made[2].flow]}, pictures[::2], pictures[1::2])


@tree
def flow_as_in_kitti(root):
    made = worlds(4)
    known = made[0].labels != 0
    for number in (0, 1):
        png(root / f"training/image_2/{number:06}_10.png", made[2 * number].picture)
        png(root / f"training/image_2/{number:06}_11.png", made[2 * number + 1].picture)
        kitti_flow(root / f"training/flow_occ/{number:06}_10.png", made[2 * number].flow, known)
    truth = [np.where(known[..., None], one.flow, np.nan) for one in made[::2]]
    pictures = [one.picture for one in made]
    return Expected(
        {"flow": truth}, pictures[::2], pictures[1::2], splits=("train",), tolerance=0.1
    )


def normals(root: Path, write: Write, suffix: str, **more) -> Expected:
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"normals/{number}{suffix}", one.normals)
    return Expected({"normals": [one.normals for one in made]}, **more)


@tree
def normals_as_an_array(root):
    return normals(root, npy, ".npy")


@tree
def normals_in_colours(root):
    def write(path, values):
        png(path, ((values + 1) * 127.5).round().astype(np.uint8))

    return normals(root, write, ".png", tolerance=0.2)


@tree
def normals_of_another_length(root):
    normals(root, lambda path, values: npy(path, values * 0.3), ".npy")
    return Expected(refused=r"normals have length 0\.3")


@tree
def flow_as_in_virtual_kitti(root):
    def write(path, flow):
        shares = (flow / [31, 23] + 1) / 2 * 65535
        png(path, np.dstack([shares, np.full((24, 32), 65535)]).round().astype(np.uint16))

    flows(root, write, ".png")
    return Expected(refused=r"as Virtual KITTI's does")
