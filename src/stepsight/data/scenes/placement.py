"""Where objects stand: free places on the ground in view, and an occluder before slot 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.data.scenes.draws import Draws
from stepsight.data.scenes.kinds import NAMES, ROUND

SLOTS = 10
PLACES = 12  # how many places an object tries
CLEARANCE = 1.1  # metres kept free around camera 1
OVERLAP = 0.25  # metres; an object whose places are all taken by more than this is left out
OPEN = 100.0  # metres to the walls outdoors
PANEL, POLE = NAMES.index("panel"), NAMES.index("pole")


@dataclass
class Bodies:
    """Objects before they have a place, "b k"."""

    active: np.ndarray
    kind: np.ndarray  # int, row of KINDS
    half: np.ndarray  # "b k 3" half extents in metres
    afloat: np.ndarray

    def fit(self, height: np.ndarray) -> None:
        """Shrink what is too large for rooms of the given height "b"."""
        x, y, z = self.half[..., 0], self.half[..., 1], self.half[..., 2]
        size = np.where(self.afloat, np.sqrt(x * x + y * y + z * z), y)
        self.half *= np.minimum(1, 0.42 * height[:, None] / size)[..., None]

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
    for slot in range(SLOTS):
        ground[:, slot], clear = _free(slot, places, ground, bodies, site)
        if slot == 1:
            top = _height(bodies, site, lift)[:, 0] - bodies.half[:, 0, 1]
            before, half, fits = _before(bodies, shape, ground[:, 0], top, site)
            fits &= occluded
            ground[:, 1] = np.where(fits[:, None], before, ground[:, 1])
            bodies.half[:, 1] = np.where(fits[:, None], half, bodies.half[:, 1])
            clear[fits] = 0
        bodies.active[:, slot] &= clear > -OVERLAP
    return np.stack([ground[..., 0], _height(bodies, site, lift), ground[..., 1]], axis=-1)


def _places(draws: Draws, site: Site) -> np.ndarray:
    """Places in view on the ground, x and z: "b k p 2"."""
    z = 1.8 + 7.5 * draws.unit(SLOTS, PLACES) * draws.uniform(0.28, 1, SLOTS, 1)
    z[:, 0] = 2 + 0.7 * z[:, 0]
    slope = draws.uniform(-0.42, 0.42, SLOTS, PLACES) / site.focal[:, None, None]
    return np.stack([slope * z, z], axis=-1)


def _height(bodies: Bodies, site: Site, lift: np.ndarray) -> np.ndarray:
    """y of the centres "b k": on the floor, or afloat up to half way to the ceiling."""
    floor, ceiling = site.distances[:, 0, None], site.distances[:, 1, None]
    low = floor - bodies.radius()
    high = np.minimum(-0.6 * ceiling + bodies.radius(), low)
    return np.where(bodies.afloat, low + lift * (high - low), floor - bodies.half[..., 1])


def inside(places: np.ndarray, radius: np.ndarray, site: Site) -> np.ndarray:
    """Places "b p 2" moved so far from the walls that a circle of `radius` "b p" fits."""
    cos, sin = site.yaw[:, 0, 0, None], site.yaw[:, 0, 2, None]
    x = cos * places[..., 0] - sin * places[..., 1]
    z = sin * places[..., 0] + cos * places[..., 1]
    left, right, front, back = site.distances.T[2:, :, None] - radius - 0.1
    x, z = np.clip(x, -left, right), np.clip(z, -back, front)
    return np.stack([cos * x + sin * z, cos * z - sin * x], axis=-1)


def _free(
    slot: int, places: np.ndarray, ground: np.ndarray, bodies: Bodies, site: Site
) -> tuple[np.ndarray, np.ndarray]:
    """The first of a slot's places that is free, else the freest: "b 2", and its clearance "b"."""
    radius = bodies.radius()
    places = inside(places[:, slot], radius[:, slot, None], site)
    others = np.concatenate([np.zeros_like(ground[:, :1]), ground[:, :slot]], axis=1)
    taken = np.where(bodies.active, radius, -OPEN)[:, :slot]
    keep = np.concatenate([np.full_like(radius[:, :1], CLEARANCE), taken], axis=1)
    apart = places[:, :, None] - others[:, None]
    distance = np.sqrt(apart[..., 0] * apart[..., 0] + apart[..., 1] * apart[..., 1])
    clear = (distance - keep[:, None] - radius[:, slot, None, None]).min(axis=2)
    best = np.minimum(clear, 0.05).argmax(axis=1)
    scenes = np.arange(len(places))
    return places[scenes, best], clear[scenes, best]


def _before(
    bodies: Bodies, shape: np.ndarray, target: np.ndarray, top: np.ndarray, site: Site
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place "b 2" and half extents "b 3" with which slot 1 hides a part of `target` "b 2".

    It stands a fraction of the way to the target, a little to the side. Its width is a share of
    the target's as seen from the camera, and its top is seen near the target's top at height
    `top`. Also returns whether it fits there.
    """
    across, deep, aside, way, rise = shape.T
    floor, radius = site.distances[:, 0], bodies.radius()[:, 0]
    distance = np.sqrt(target[:, 0] * target[:, 0] + target[:, 1] * target[:, 1])
    width = (0.5 + 1.0 * across) * radius
    nearest = (CLEARANCE + width) / distance
    farthest = (distance - radius - width) / distance
    way = np.minimum(np.maximum(0.5 + 0.3 * way, nearest), farthest)
    seen_top = top + (floor - top) * (0.5 * rise - 0.25)
    height = np.maximum(0.2, floor - way * seen_top)
    half = np.stack([way * width, height / 2, way * width * (0.6 + 0.6 * deep)], axis=1)
    kind, drawn = bodies.kind[:, 1], bodies.half[:, 1]  # poles and panels stay slim
    half[:, 0] = np.where(kind == POLE, drawn[:, 0], half[:, 0])
    half[:, 2] = np.where((kind == POLE) | (kind == PANEL), drawn[:, 2], half[:, 2])
    side = 1.2 * (aside - 0.5) * radius / distance
    x = target[:, 0] + side * target[:, 1]
    z = target[:, 1] - side * target[:, 0]
    return way[:, None] * np.stack([x, z], axis=1), half, nearest <= farthest
