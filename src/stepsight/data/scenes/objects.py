"""The things that stand, float and move in a world.

Slot 0 is meant to be the object whose hidden part is asked for and slot 1 its occluder; the rest
look for a free place. World axes as in `parameters`: y down, camera 1 at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.data.scenes.draws import Draws
from stepsight.data.scenes.geometry.rigid import Y, product, rotation, unit
from stepsight.data.scenes.kinds import LARGEST, SMALLEST
from stepsight.data.scenes.levels import Level
from stepsight.data.scenes.placement import PANEL, POLE, SLOTS, Bodies, Site, inside, settle

STRIDE = 0.5  # metres; no object moves further than this along any axis


@dataclass
class Objects:
    """The objects of `b` scenes."""

    active: np.ndarray  # bool "b k"
    kind: np.ndarray  # int "b k", row of KINDS
    half: np.ndarray  # "b k 3" half extents
    centre: np.ndarray  # "b k 3"
    attitude: np.ndarray  # "b k 3 3", world from object
    slide: np.ndarray  # "b k 3" shift between the frames
    spin: np.ndarray  # "b k" half-tangent of the turn about the vertical between the frames


def draw_objects(draws: Draws, level: Level, site: Site) -> Objects:
    """Objects of drawn kinds and sizes, standing where they do not collide."""
    bodies = _bodies(draws, level)
    bodies.fit(site.distances[:, 0] + site.distances[:, 1])
    attitude = _attitude(draws, bodies)
    centre = settle(bodies, draws, site, level.occlusion)
    slide, spin = _motion(draws, level, bodies.afloat)
    slide *= _stays_inside(centre + slide, bodies, site)[..., None]
    return Objects(bodies.active, bodies.kind, bodies.half, centre, attitude, slide, spin)


def _bodies(draws: Draws, level: Level) -> Bodies:
    count = np.floor(level.objects * draws.uniform(0.5, 1.5) + draws.unit())
    kind = draws.choice(level.shapes, SLOTS)
    kind = np.where(draws.chance(level.thin, SLOTS), POLE, kind)
    share = 0.6 * draws.unit(SLOTS, 1) + 0.4 * draws.unit(SLOTS, 3)
    half = SMALLEST[kind] + (LARGEST - SMALLEST)[kind] * share
    afloat = draws.chance(level.floating, SLOTS) & (np.arange(SLOTS) != 1)
    return Bodies(np.arange(SLOTS) < count[:, None], kind, half, afloat)


def _attitude(draws: Draws, bodies: Bodies) -> np.ndarray:
    """Any heading, panels turned towards the camera; what floats is tilted too."""
    heading = draws.uniform(-1, 1, SLOTS) * np.where(bodies.kind == PANEL, 0.4, 1.0)
    axis = unit(draws.uniform(-1, 1, SLOTS, 3) * [1, 0, 1] + [0, 0, 1e-6])
    tilt = draws.uniform(-0.35, 0.35, SLOTS) * bodies.afloat
    return product(rotation(np.broadcast_to(Y, axis.shape), heading), rotation(axis, tilt))


def _motion(draws: Draws, level: Level, afloat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and spin of the objects that move; only what floats leaves the ground (upwards)."""
    moving = draws.chance(level.sliding, SLOTS) & (not level.camera_only)
    reach = level.displacement * moving
    step = draws.bell(SLOTS, 3)
    step[..., 1] = -np.abs(step[..., 1]) * afloat
    slide = np.clip(level.slide * reach[..., None] * step, -STRIDE, STRIDE)
    return slide, level.spin * reach * draws.bell(SLOTS)


def _stays_inside(centre: np.ndarray, bodies: Bodies, site: Site) -> np.ndarray:
    """bool "b k": no wall is in the way of the centres "b k 3"."""
    ground = centre[..., [0, 2]]
    free = np.abs(inside(ground, bodies.radius(), site) - ground) < 1e-6
    return free[..., 0] & free[..., 1]
