"""Where objects stand: free places on the ground in view, and an occluder before slot 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.data.scenes.draws import Draws
from stepsight.data.scenes.kinds import NAMES, ROUND

SLOTS = 10
PLACES = 6  # how many places an object tries
CLEARANCE = 1.2  # metres kept free around camera 1
OPEN = 100.0  # metres to the walls outdoors
PANEL, POLE = NAMES.index("panel"), NAMES.index("pole")


@dataclass
class Bodies:
    """Objects before they have a place, "b k"."""

    active: np.ndarray
    kind: np.ndarray  # int, row of KINDS
    half: np.ndarray  # "b k 3" half extents in metres
    afloat: np.ndarray

    def radius(self) -> np.ndarray:
        """Radius "b k" of a circle on the ground that holds the object at any heading."""
        x, y, z = self.half[..., 0], self.half[..., 1], self.half[..., 2]
        standing = np.where(ROUND[self.kind], np.maximum(x, z), np.sqrt(x * x + z * z))
        return np.where(self.afloat, np.sqrt(x * x + y * y + z * z), standing)


@dataclass
class Site:
    """The camera's view of the ground, and the walls around it."""

    focal: np.ndarray  # "b", fraction of the image width
    yaw: np.ndarray  # "b 3 3", world from room
    distances: np.ndarray  # "b 6" to floor, ceiling, left, right, front, back


def settle(bodies: Bodies, draws: Draws, site: Site, occlusion: float) -> np.ndarray:
    """Centres "b k 3". An occluder, drawn with probability `occlusion`, is resized in place."""
    places, lift = _places(draws, site), draws.unit(SLOTS)
    occluded, shape = draws.chance(occlusion), draws.unit(5)
    ground = np.zeros((*bodies.kind.shape, 2))
    ground[:, 0] = _free(0, places, ground, bodies, site)
    top = _height(bodies, site, lift)[:, 0] - bodies.half[:, 0, 1]
    before = _occlude(bodies, shape, ground[:, 0], top, site, occluded)
    ground[:, 1] = np.where(occluded[:, None], before, _free(1, places, ground, bodies, site))
    for slot in range(2, SLOTS):
        ground[:, slot] = _free(slot, places, ground, bodies, site)
    return np.stack([ground[..., 0], _height(bodies, site, lift), ground[..., 1]], axis=-1)


def _places(draws: Draws, site: Site) -> np.ndarray:
    """Places in view on the ground, x and z: "b k p 2"."""
    z = draws.uniform(1.8, 7.5, SLOTS, PLACES)
    slope = draws.uniform(-0.42, 0.42, SLOTS, PLACES) / site.focal[:, None, None]
    return np.stack([slope * z, z], axis=-1)


def _height(bodies: Bodies, site: Site, lift: np.ndarray) -> np.ndarray:
    """y of the centres "b k": on the floor, or afloat up to half way to the ceiling."""
    floor, ceiling = site.distances[:, 0, None], site.distances[:, 1, None]
    low = floor - bodies.radius()
    high = np.minimum(-0.6 * ceiling + bodies.radius(), low)
    return np.where(bodies.afloat, low + lift * (high - low), floor - bodies.half[..., 1])


def _inside(places: np.ndarray, radius: np.ndarray, site: Site) -> np.ndarray:
    """Places "b p 2" moved away from the walls."""
    cos, sin = site.yaw[:, 0, 0, None], site.yaw[:, 0, 2, None]
    x = cos * places[..., 0] - sin * places[..., 1]
    z = sin * places[..., 0] + cos * places[..., 1]
    left, right, front, back = (site.distances[:, 2:] - radius[:, None] - 0.1).T[..., None]
    x, z = np.clip(x, -left, right), np.clip(z, -back, front)
    return np.stack([cos * x + sin * z, cos * z - sin * x], axis=-1)


def _free(
    slot: int, places: np.ndarray, ground: np.ndarray, bodies: Bodies, site: Site
) -> np.ndarray:
    """The first of a slot's places clear of the camera and all earlier slots, else the clearest."""
    radius = bodies.radius()
    places = _inside(places[:, slot], radius[:, slot], site)
    others = np.concatenate([np.zeros_like(ground[:, :1]), ground[:, :slot]], axis=1)
    keep = np.concatenate([np.full_like(radius[:, :1], CLEARANCE), radius[:, :slot]], axis=1)
    apart = places[:, :, None] - others[:, None]
    distance = np.sqrt(apart[..., 0] ** 2 + apart[..., 1] ** 2)
    clear = (distance - keep[:, None] - radius[:, slot, None, None]).min(axis=2)
    best = np.minimum(clear, 0.05).argmax(axis=1)
    return places[np.arange(len(places)), best]


def _occlude(
    bodies: Bodies,
    shape: np.ndarray,
    target: np.ndarray,
    top: np.ndarray,
    site: Site,
    occluded: np.ndarray,
) -> np.ndarray:
    """Place slot 1 before `target` "b 2" and, where `occluded`, size it to hide a part of that.

    It stands a fraction of the way to the target, a little to the side. Its width is a share of
    the target's as seen from the camera; its top is seen around the target's top at height `top`.
    """
    across, deep, aside, way, rise = shape.T
    radius = bodies.radius()[:, 0]
    distance = np.sqrt(target[:, 0] ** 2 + target[:, 1] ** 2)
    width = (0.3 + 0.6 * across) * radius
    nearest = (CLEARANCE + width) / distance
    farthest = (distance - radius - width - 0.1) / distance
    way = np.minimum(np.maximum(0.5 + 0.3 * way, nearest), farthest)
    floor = site.distances[:, 0]
    seen_top = top + (floor - top) * (0.5 * rise - 0.2)
    half = np.stack([width * way, np.maximum(0.1, (floor - way * seen_top) / 2), width * way * (0.6 + 0.6 * deep)])
    kind = bodies.kind[:, 1]
    thin = np.stack([kind == POLE, kind == POLE, (kind == POLE) | (kind == PANEL)]) & [[1], [0], [1]]
    keep = bodies.half[:, 1]
    bodies.half[:, 1] = np.where(occluded[:, None] & ~thin.T, half.T, keep)
    side = 1.2 * (aside - 0.5) * radius / distance
    return way[:, None] * np.stack([target[:, 0] + side * target[:, 1], target[:, 1] - side * target[:, 0]], 1)
