"""How hard the worlds are: the named levels, and the dials that change single things of a level."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.placement import SLOTS
from stepsight.errors import UserError, suggest


@dataclass(frozen=True)
class Level:
    """The statistics of a family of worlds. Lengths in metres, angles as half-tangents tan(a/2)."""

    # The dials of `ScenesSettings`.
    objects: float  # expected number of objects, less those that find no free place
    occlusion: float  # probability that an occluder stands before the chosen object
    texture: float  # contrast of the patterns, 0 (plain) to 1
    displacement: float  # multiplies all motion
    thin: float  # probability that an object is a thin pole
    camera_only: bool  # objects keep still
    # What a level fixes.
    outdoors: float  # probability of open ground under a sky instead of a room
    floating: float  # probability that an object floats, tilted
    sliding: float  # probability that an object moves
    shapes: tuple[float, ...]  # weights of the kinds `kinds.KINDS`, poles left out
    patterns: tuple[float, ...]  # weights of checker, stripes, warped waves, noise
    fineness: float  # multiplies the spatial frequency of the patterns
    saturation: tuple[float, float]  # range of the saturation of colours
    turn: tuple[float, float, float]  # spread of the camera's pitch, yaw and roll
    shift: tuple[float, float, float]  # spread of the camera's shift: right, down, forward
    slide: float  # spread of an object's shift along each ground axis
    spin: float  # spread of an object's turn about the vertical


STANDARD = Level(
    objects=6.0,
    occlusion=0.8,
    texture=1.0,
    displacement=1.0,
    thin=0.08,
    camera_only=False,
    outdoors=0.2,
    floating=0.15,
    sliding=0.5,
    shapes=(0.26, 0.07, 0.16, 0.07, 0.06, 0.24, 0.14),
    patterns=(0.3, 0.25, 0.2, 0.25),
    fineness=1.0,
    saturation=(0.15, 0.75),
    turn=(0.0138, 0.0225, 0.006),
    shift=(0.05, 0.03, 0.15),
    slide=0.14,
    spin=0.05,
)

LEVELS: dict[str, Level] = {
    "easy": replace(STANDARD, objects=3.0, occlusion=0.4, displacement=0.5, thin=0.0, floating=0.0),
    "standard": STANDARD,
    "hard": replace(
        STANDARD, objects=8.0, occlusion=0.9, displacement=1.6, thin=0.2, floating=0.25
    ),
    "shifted": replace(
        STANDARD,
        outdoors=0.5,
        shapes=(0.08, 0.2, 0.1, 0.18, 0.18, 0.14, 0.12),
        patterns=(0.0, 0.2, 0.2, 0.6),
        fineness=1.5,
        saturation=(0.5, 0.95),
        turn=(0.006, 0.01, 0.02),
        shift=(0.15, 0.05, 0.05),
        slide=0.2,
        spin=0.1,
    ),
}

DIALS = ("objects", "occlusion", "texture", "displacement", "thin", "camera_only")


def level_of(settings: ScenesSettings) -> Level:
    """The named level with the dials of `settings` that are set. Raises UserError if impossible."""
    if settings.level not in LEVELS:
        raise UserError(
            f"data.scenes.level: no level '{settings.level}'.{suggest(settings.level, LEVELS)}"
        )
    turned = {dial: getattr(settings, dial) for dial in DIALS}
    turned = {dial: value for dial, value in turned.items() if value is not None}
    for dial, value in turned.items():
        limit = {"objects": float(SLOTS), "displacement": 100.0}.get(dial, 1.0)
        if not 0 <= value <= limit:
            raise UserError(f"data.scenes.{dial}: {value} is not between 0 and {limit:g}.")
    return replace(LEVELS[settings.level], **turned)
