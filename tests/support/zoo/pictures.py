"""Trees that differ in how the pictures are stored: containers, colours, depth of bits, turned by a
tag. Truth is drawn on the upright grid unless said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.files import npy, place, png
from zoo.world import Expected, tree, worlds

TURNS = {  # EXIF orientation: from the upright picture to the stored one
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


def saved(root: Path, suffix: str, **options: Any) -> Expected:
    """Pictures as Pillow writes them by the suffix."""
    made = worlds()
    for number, one in enumerate(made):
        Image.fromarray(one.picture).save(place(root / f"images/{number}{suffix}"), **options)
        npy(root / f"depth/{number}.npy", one.depth)
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def bmp_pictures(root):
    return saved(root, ".bmp")


@tree
def tiff_pictures(root):
    return saved(root, ".tif")


@tree
def webp_pictures(root):
    return saved(root, ".webp", lossless=True)


@tree
def avif_pictures(root):
    return saved(root, ".avif", quality=95)


@tree
def heic_pictures(root):
    __import__("pillow_heif").register_heif_opener()
    return saved(root, ".heic", quality=95)


@tree
def gif_pictures(root):
    found = saved(root, ".gif")
    found.pictures = None  # of 256 colours
    return found


@tree
def jpeg_pictures(root):
    found = saved(root, ".JPG", quality=98, subsampling=0)
    return found


def written(root: Path, write: Callable[[Path, np.ndarray], Any], suffix: str) -> Expected:
    made = worlds()
    for number, one in enumerate(made):
        write(root / f"images/{number}{suffix}", one.picture)
        npy(root / f"depth/{number}.npy", one.depth)
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made])


@tree
def pictures_of_16_bits(root):
    return written(root, lambda path, p: png(path, p.astype(np.uint16) * 257), ".png")


@tree
def pictures_with_alpha(root):
    def write(path, picture):
        png(path, np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]))

    return written(root, write, ".png")


@tree
def pictures_as_netpbm(root):
    def write(path, picture):
        height, width = picture.shape[:2]
        place(path).write_bytes(f"P6 {width} {height} 255\n".encode() + picture.tobytes())

    return written(root, write, ".ppm")


@tree
def grey_pictures(root):
    found = written(root, lambda path, picture: png(path, picture[..., 0]), ".png")
    found.pictures = [np.repeat(picture[..., :1], 3, 2) for picture in found.pictures]
    return found


@tree
def pictures_in_cmyk(root):
    def write(path, picture):
        Image.fromarray(picture).convert("CMYK").save(place(path))

    return written(root, write, ".tif")


def turned(root: Path, numbers: tuple[int, ...], truth_too: bool = False, **more) -> Expected:
    made = worlds(len(numbers))
    for number, one in zip(numbers, made):
        tags = Image.Exif()
        tags[0x0112] = number
        stored = np.ascontiguousarray(TURNS[number](one.picture))
        image = Image.fromarray(stored)
        image.save(place(root / f"images/{number}.jpg"), exif=tags, quality=98, subsampling=0)
        depth = np.ascontiguousarray(TURNS[number](one.depth)) if truth_too else one.depth
        npy(root / f"depth/{number}.npy", depth)
    return Expected({"depth": [w.depth for w in made]}, [w.picture for w in made], **more)


@tree
def turned_by_a_tag(root):
    return turned(root, (1, 2, 3, 4, 5, 6, 7, 8), says=(r"orientation",))


@tree
def turned_by_a_quarter_with_their_truth(root):
    return turned(root, (5, 6, 7, 8), truth_too=True, says=(r"orientation",))


@tree
def one_picture_is_no_picture(root):
    found = saved(root, ".png")
    (root / "images/1.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    found.pictures[1] = found.truth["depth"][1] = None
    found.says, found.clean = (r"1 of 3 samples cannot be read.*1\.png",), False
    return found
