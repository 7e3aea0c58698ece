"""Trees of visible and whole masks in the encodings that people use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.files import npy, place, png
from zoo.world import Expected, World, tree, world, worlds

Write = Callable[[Path, np.ndarray], Any]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [220, 20, 60]], np.uint8)


def masks(root: Path, write: Write, suffix: str = ".png", **more) -> Expected:
    """A visible and a whole mask a picture, bool "h w" as `write` stores them."""
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        write(root / f"modal/{number}{suffix}", one.modal)
        write(root / f"amodal/{number}{suffix}", one.amodal)
    return whole(made, **more)


def whole(made: list[World], **more) -> Expected:
    return Expected({"amodal": [w.amodal for w in made]}, [w.picture for w in made], **more)


def bytes_of(inside: int, outside: int = 0) -> Write:
    return lambda path, mask: png(path, np.where(mask, inside, outside).astype(np.uint8))


@tree
def masks_0_255(root):
    return masks(root, bytes_of(255))


@tree
def masks_0_1(root):
    return masks(root, bytes_of(1))


@tree
def masks_of_a_bit(root):
    return masks(root, png)


@tree
def masks_of_16_bits(root):
    return masks(root, lambda path, mask: png(path, mask.astype(np.uint16) * 65535))


@tree
def masks_with_a_palette(root):
    def write(path, mask):
        png(path, mask.astype(np.uint8), np.array([[0, 0, 0], [128, 0, 0]]))

    return masks(root, write)


@tree
def masks_as_grey_colours(root):
    return masks(root, lambda p, m: png(p, np.repeat(m[..., None], 3, 2).astype(np.uint8) * 255))


@tree
def masks_in_the_alpha_channel(root):
    def write(path, mask):
        png(path, np.dstack([np.full((*mask.shape, 3), 255), mask * 255]).astype(np.uint8))

    return masks(root, write)


@tree
def masks_as_bools(root):
    return masks(root, npy, ".npy")


@tree
def masks_as_jpeg(root):
    def write(path, mask):
        large = np.kron(mask.astype(np.uint8) * 255, np.ones((8, 8), np.uint8))
        Image.fromarray(large).save(place(path), quality=95)

    made = [world(n, 24, 32) for n in range(2)]
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", np.kron(one.picture, np.ones((8, 8, 1), np.uint8)))
        write(root / f"modal/{number}.jpg", one.modal)
        write(root / f"amodal/{number}.jpg", one.amodal)
    return Expected({"amodal": [np.kron(one.amodal, np.ones((8, 8), bool)) for one in made]})


@tree
def dark_masks_with_an_answer(root):
    return masks(root, bytes_of(0, 255), answers={"mask_inside": "dark"})


@tree
def dark_masks(root):
    made = worlds()
    found = masks(root, bytes_of(0, 255), says=(r"border.*--mask-inside dark",), clean=False)
    found.truth["amodal"] = [~one.modal for one in made]  # united with the visible
    return found


@tree
def masks_of_three_values(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels)
        png(root / f"amodal/{number}.png", one.labels)
    return Expected(refused=r"say what is inside")


@tree
def masks_that_the_user_explains(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels)
        png(root / f"amodal/{number}.png", one.labels)
    found = whole(made, answers={"mask_inside": "2"})
    return found


@tree
def several_objects_a_picture(root):
    one = world()
    other = np.zeros_like(one.amodal)
    other[2:6, 2:9] = True
    png(root / "images/room.png", one.picture)
    for number, mask in enumerate((one.amodal, other)):
        png(root / f"visible_mask/room_{number}.png", mask)
        png(root / f"whole_mask/room_{number}.png", mask)
    return Expected({"amodal": [one.amodal, other]})


@tree
def masks_of_bop(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"000048/rgb/{number:06}.png", one.picture)
        png(root / f"000048/mask/{number:06}_000000.png", one.amodal)
        png(root / f"000048/mask_visib/{number:06}_000000.png", one.modal)
    return whole(made)


@tree
def whole_mask_alone(root):
    one = world()
    png(root / "images/0.png", one.picture)
    png(root / "amodal/0.png", one.amodal)
    return Expected(refused=r"takes the visible and the whole mask")


@tree
def empty_masks(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"modal/{number}.png", one.labels * 0)
        png(root / f"amodal/{number}.png", one.labels * 0)
    return Expected(refused=r"no visible pixel")


@tree
def as_in_pix2gestalt(root):
    made = worlds()
    for number, one in enumerate(made):
        png(root / f"occlusion/{number}_occlusion.png", one.picture)
        png(root / f"whole/{number}_whole.png", one.picture)
        png(root / f"whole_mask/{number}_whole_mask.png", one.amodal)
        png(root / f"visible_object_mask/{number}_visible_mask.png", one.modal)
    return whole(made)
