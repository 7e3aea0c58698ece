"""Trees that open, and are wrong: in unit, orientation or encoding. A sentence has to say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.files import npy, place, png
from zoo.pictures import TURNS
from zoo.world import Expected, World, measured, tree, worlds

LARGE = (96, 128)  # pixels: on smaller pictures nobody could tell
Change = Callable[[np.ndarray], np.ndarray]


def depth_of(root: Path, change: Change, write=npy, suffix=".npy", folder="depth") -> list[World]:
    made = worlds(4, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"{folder}/{number}{suffix}", np.ascontiguousarray(change(one.depth)))
    return made


def wrong(truth: list[np.ndarray], *says: str, quantity: str = "depth", **more: Any) -> Expected:
    return Expected({quantity: truth}, says=says, clean=False, **more)


@tree
def depth_mirrored(root):
    made = depth_of(root, lambda d: d[:, ::-1])
    return wrong([w.depth[:, ::-1] for w in made], r"mirrored left to right")


@tree
def depth_upside_down(root):
    made = depth_of(root, lambda d: d[::-1])
    return wrong([w.depth[::-1] for w in made], r"upside down")


@tree
def depth_turned_by_180_degrees(root):
    made = depth_of(root, lambda d: d[::-1, ::-1])
    return wrong([w.depth[::-1, ::-1] for w in made], r"turned by 180")


@tree
def depth_turned_by_90_degrees(root):
    depth_of(root, lambda d: d.T[::-1])
    return Expected(refused=r"quarter turn")


@tree
def depth_shifted(root):
    made = depth_of(root, lambda d: np.roll(d, 3, 1))
    found = wrong([np.roll(w.depth, 3, 1) for w in made], r"moved|shifted|right")
    found.clean = True  # worth knowing
    return found


@tree
def depth_of_another_shape(root):
    depth_of(root, lambda d: d[:, :64])
    return Expected(refused=r"96 x 64 pixels, where its image has 96 x 128")


@tree
def depth_of_other_pictures(root):
    made = depth_of(root, lambda d: d)
    order = [1, 2, 3, 0]
    for number, other in enumerate(order):
        npy(root / f"depth/{number}.npy", made[other].depth)
    found = wrong([made[n].depth for n in order])
    found.clean = True  # nothing in the files says so: they are rooms like each other
    return found


@tree
def labels_mirrored(root):
    made = worlds(4, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"labels/{number}.png", one.labels[:, ::-1])
    return wrong([w.labels[:, ::-1] for w in made], r"mirrored left to right", quantity="labels")


@tree
def photographs_with_truth_as_stored(root):
    made = worlds(4, *LARGE)
    for number, one in enumerate(made):
        tags = Image.Exif()
        tags[0x0112] = 3
        image = Image.fromarray(np.ascontiguousarray(TURNS[3](one.picture)))
        image.save(place(root / f"images/{number}.jpg"), exif=tags, quality=95)
        npy(root / f"depth/{number}.npy", np.ascontiguousarray(TURNS[3](one.depth)))
    return wrong([TURNS[3](w.depth) for w in made], r"turned by 180")


def moving(root: Path, change: Change) -> list[np.ndarray]:
    """Two frames, the second moved by whole pixels, and flow as `change` makes it of the true."""
    flows = []
    for number in range(4):
        draw = np.random.default_rng(number)
        blocks = draw.integers(0, 255, (30, 36, 3), np.uint8)
        texture = np.kron(blocks, np.ones((4, 4, 1), np.uint8))
        flow = np.zeros((*LARGE, 2), np.float32) + np.float32([6, 2])
        png(root / f"pair{number}_img1.png", texture[8:104, 8:136])
        png(root / f"pair{number}_img2.png", texture[6:102, 2:130])
        flows.append(np.ascontiguousarray(change(flow)))
        npy(root / f"pair{number}_flow.npy", flows[-1])
    return flows


@tree
def flow_as_it_moves(root):
    return Expected({"flow": moving(root, lambda flow: flow)})


@tree
def flow_with_u_and_v_exchanged(root):
    flows = moving(root, lambda flow: flow[..., ::-1])
    return wrong(flows, r"flow explains the second picture much better", quantity="flow")


@tree
def flow_backwards(root):
    flows = moving(root, lambda flow: -flow)
    return wrong(flows, r"flow explains the second picture much better", quantity="flow")


@tree
def named_millimetres_that_are_none(root):
    made = worlds(3, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"depth_mm/{number}.png", measured(one.depth) * np.uint16(5))
    return Expected(refused=r"name says 'mm'.*multiples of 5.*--depth-unit")


@tree
def metres_that_are_none(root):
    made = worlds(3, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"depth/{number}.png", measured(one.depth))
    return Expected(refused=r"lies beyond 1000 m.*another unit", answers={"depth_unit": "m"})


@tree
def disparities_that_are_none(root):
    made = depth_of(root, lambda d: d)
    truth = [1 / one.depth for one in made]
    answers = {"depth_unit": "1/disparity"}
    return wrong(truth, r"looks like disparity", answers=answers, tolerance=1e-5)


@tree
def disparities_in_16_bits(root):
    def change(depth):
        return (256 * 40 / depth).round().astype(np.uint16)

    made = depth_of(root, change, png, ".png")
    truth = [1 / change(one.depth) for one in made]
    found = Expected({"depth": truth}, options={"depth_unit": "disparity"}, tolerance=1e-5)
    found.says = (r"these are disparities",)
    return found


@tree
def floats_of_centimetres(root):
    depth_of(root, lambda d: 100 * d)
    return Expected(refused=r"m in cm.*--depth-unit")


@tree
def depth_upside_down_in_value(root):
    made = depth_of(root, lambda d: (1 - d / 10).clip(0))
    assert made
    return Expected(refused=r"m, or disparity, .*--depth-unit")


@tree
def masks_swapped(root):
    made = worlds(3, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.amodal)
        png(root / f"amodal/{number}.png", one.modal)
    return wrong([w.amodal for w in made], r"visible masks reach beyond", quantity="amodal")


def stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


@tree
def relative_depth_in_16_bits(root):
    depth_of(root, lambda d: (65535 * stretched(d)).round().astype(np.uint16), png, ".png")
    return Expected(refused=r"stretched to its own range.*--depth-unit disparity")


@tree
def relative_disparity_in_floats(root):
    depth_of(root, lambda d: stretched(1 / d).astype(np.float32))
    return Expected(refused=r"stretched to its own range")


@tree
def depth_along_a_z_that_comes_out(root):
    depth_of(root, lambda d: -d)
    return Expected(refused=r"z that comes out of the picture")


@tree
def normals_along_a_z_that_comes_out(root):
    made = worlds(4, *LARGE)
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        npy(root / f"normals/{number}.npy", one.normals * np.float32([1, -1, -1]))
    truth = [one.normals * np.float32([1, -1, -1]) for one in made]
    return wrong(truth, r"normals point away from the camera", quantity="normals")


@tree
def flow_upside_down(root):
    flows = moving(root, lambda flow: flow * np.float32([1, -1]))
    return wrong(flows, r"flow explains the second picture much better", quantity="flow")
