"""Depth as points in space: a binary `.ply` with colours.

A pixel of depth Z (metres along the optical axis) whose centre is at (u, v) lies at
X = (u - cx) Z / fx, Y = (v - cy) Z / fy, Z: x right, y down, z forward, as OpenCV has it. u and v
count pixels from the picture's top left corner, so that the first centre is at (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from stepsight.data.decoding.images import formats_for
from stepsight.errors import UserError

FILM = math.hypot(36, 24)  # mm, the diagonal that 35 mm equivalents refer to (CIPA DCG-001)
UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # mm, by FocalPlaneResolutionUnit (Exif 2.3)
FOCAL, FILM_FOCAL, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA002, 0xA003  # Exif tags
PLANE_X, PLANE_UNIT, EXIF = 0xA20E, 0xA210, 0x8769
APART = 0.1  # share by which two statements of a file may differ
CROPPED = 0.02  # share by which the shape of a picture may differ from that it was taken in
FAR = 20.0  # times the median: what is farther, such as sky, is left out
VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera on the grid of its picture, in pixels."""

    fx: float
    fy: float
    cx: float  # from the left edge
    cy: float  # from the upper edge
    source: str  # where it is known from


def intrinsics(
    path: Path | str,
    size: Sequence[int],
    fov: float | None = None,
    given: Sequence[float] | None = None,
) -> Intrinsics:
    """The camera of a picture of `size` (height, width): `given` as fx, fy, cx, cy; from the
    horizontal field of view in degrees; else from the focal length that the file's EXIF states.

    Raises UserError for numbers that no camera has, and where the file states none, two that
    contradict each other, or one of a picture that was cropped since.
    """
    height, width = size
    if given is not None:
        if len(given) != 4 or not all(map(math.isfinite, given)) or min(given[:2]) <= 0:
            raise UserError(f"intrinsics {given}: give fx,fy,cx,cy in pixels, fx and fy above 0.")
        return Intrinsics(*map(float, given), source="as given")
    if fov is not None:
        if not 0 < fov < 180:
            raise UserError(f"a field of view of {fov:g} degrees: give 0 to 180, horizontally.")
        focal, source = width / 2 / math.tan(math.radians(fov) / 2), f"a stated {fov:g} degrees"
    else:
        focal, source = _stated(Path(path), height, width)
    return Intrinsics(focal, focal, width / 2, height / 2, source)


def write_ply(
    path: Path | str,
    depth: Tensor,
    picture: Tensor,
    camera: Intrinsics,
    *,
    relative: bool = False,
    far: float | None = None,
) -> int:
    """Write points with colours; the number of them.

    depth: "1 h w", metres. picture: uint8 "3 h w". Left out are pixels without depth (not finite,
    or 0 and below) and those farther than `far` metres; without it than 20 times the median.
    relative: the depth is right up to scale and shift alone, which the header says: shapes lean and
    bend with the unknown shift. Format: PLY 1.0, binary little-endian (Turk 1994).
    """
    z = depth[0].detach().cpu().numpy().astype(np.float64)
    known = np.isfinite(z) & (z > 0)
    far = far or (FAR * float(np.median(z[known])) if known.any() else 0.0)
    known &= z <= far
    rows, columns = np.nonzero(known)
    z = z[known]
    points = np.empty(len(z), VERTEX)
    points["x"] = (columns + 0.5 - camera.cx) * z / camera.fx
    points["y"] = (rows + 0.5 - camera.cy) * z / camera.fy
    points["z"] = z
    colours = picture.detach().cpu().numpy()[:, known]
    for name, plane in zip(("red", "green", "blue"), colours, strict=True):
        points[name] = plane
    unit = "no unit: depth up to scale and shift" if relative else "metres"
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {unit}; x right, y down, z forward; nothing beyond {far:.6g}",
        f"comment camera fx {camera.fx:.6g} fy {camera.fy:.6g} cx {camera.cx:.6g} cy "
        f"{camera.cy:.6g}: {camera.source}",
        f"element vertex {len(points)}",
        *(
            f"property {'float' if name in 'xyz' else 'uchar'} {name}"
            for name in VERTEX.names or ()
        ),
        "end_header\n",
    ]
    with open(path, "wb") as file:
        file.write("\n".join(header).encode("ascii", "replace"))
        file.write(points.tobytes())
    return len(points)


def _stated(path: Path, height: int, width: int) -> tuple[float, str]:
    """The focal length in pixels that a file states, and by which field."""
    tags = _exif(path)
    taken = [tags[tag] for tag in (WIDTH, HEIGHT) if tag in tags]
    if len(taken) == 2 and abs(_shape(*taken) / _shape(height, width) - 1) > CROPPED:
        raise UserError(
            f"{path}: was taken as {taken[0]:g}x{taken[1]:g} and is {width}x{height}: it was "
            "cropped, and its focal length is of the whole. Give --fov or --intrinsics."
        )
    found: dict[str, float] = {}
    if film := tags.get(FILM_FOCAL):
        found["35 mm equivalent"] = film / FILM * math.hypot(height, width)
    if FOCAL in tags and PLANE_X in tags and len(taken) == 2:
        cells = tags[PLANE_X] / UNITS.get(int(tags.get(PLANE_UNIT, 2)), 25.4)  # per mm, as taken
        found["focal plane resolution"] = tags[FOCAL] * cells * max(height, width) / max(taken)
    if not found:
        raise UserError(
            f"{path}: states no focal length. Give the horizontal field of view (--fov DEGREES) or "
            "--intrinsics FX,FY,CX,CY."
        )
    if max(found.values()) > (1 + APART) * min(found.values()):
        said = " and ".join(f"{focal:.0f} pixels by its {name}" for name, focal in found.items())
        raise UserError(f"{path}: its focal length is {said}. Give --fov or --intrinsics.")
    name, focal = next(reversed(found.items()))  # equivalents are rounded to millimetres
    return focal, f"EXIF, {name}"


def _shape(*sides: float) -> float:
    """Of a picture, whichever way it is held."""
    return max(sides) / min(sides)


def _exif(path: Path) -> Mapping[int, float]:
    """Positive numbers of a file's EXIF; none where it holds none."""
    try:
        with open(path, "rb") as file:
            formats = formats_for(file.read(12))
        with Image.open(path, formats=formats) as image:
            held = dict(image.getexif().get_ifd(EXIF))
    except (OSError, ValueError, SyntaxError):
        return {}
    numbers: dict[int, float] = {}
    for tag, value in held.items():
        try:
            number = float(value)
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if math.isfinite(number) and number > 0:
            numbers[tag] = number
    return numbers
