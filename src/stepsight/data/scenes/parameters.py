"""What a world consists of, drawn from a level: camera, room or ground, light, objects, surfaces.

World axes: x right, y down, z forward; the origin is camera 1, gravity points along y.
Everything is float64 in exactly rounded arithmetic; sizes and positions in metres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from stepsight.data.scenes.draws import Draws
from stepsight.data.scenes.geometry.rigid import Y, apply, rotation, unit
from stepsight.data.scenes.kinds import CLASSES, LABEL, THINGS
from stepsight.data.scenes.levels import Level
from stepsight.data.scenes.objects import Objects, draw_objects
from stepsight.data.scenes.placement import OPEN, SLOTS, Site

FACES = 6  # floor, ceiling, left, right, front, back: the first rows of a scene's surfaces
SURFACES = FACES + SLOTS
REACH = 0.6  # metres; the camera moves no further than this along any axis


@dataclass
class Camera:
    """Camera 1 and its motion. Half-tangents for angles."""

    focal: np.ndarray  # "b", focal length as a fraction of the image width
    pitch: np.ndarray  # "b", positive looks down
    roll: np.ndarray  # "b"
    turn: np.ndarray  # "b 3" between the frames, about the axes of camera 1: pitch, yaw, roll
    shift: np.ndarray  # "b 3" between the frames, world axes


@dataclass
class Room:
    """An axis-aligned room seen from inside; outdoors only the floor is real and the rest sky."""

    outdoors: np.ndarray  # bool "b"
    attitude: np.ndarray  # "b 3 3", world from room: a turn about the vertical
    distances: np.ndarray  # "b 6" from camera 1 to floor, ceiling, left, right, front, back
    light: np.ndarray  # "b 3", world position of the lamp or the sun


@dataclass
class Surfaces:
    """Colours and patterns of the faces and objects, "b s ..."."""

    colours: np.ndarray  # "b s 2 3" in [0, 1], what the pattern alternates between
    pattern: np.ndarray  # int "b s": checker, stripes, warped waves, noise
    frequency: np.ndarray  # "b s" periods per metre
    contrast: np.ndarray  # "b s" in [0, 1]
    axis: np.ndarray  # "b s 3" unit, the pattern is turned about it
    angle: np.ndarray  # "b s"
    phase: np.ndarray  # "b s 3" periods


@dataclass
class World:
    """The parameters of `b` scenes."""

    camera: Camera
    room: Room
    objects: Objects
    surfaces: Surfaces

    @property
    def sky(self) -> np.ndarray:
        """bool "b s": the surface that is the sky."""
        return self.room.outdoors[:, None] & (np.arange(SURFACES) == 1)

    @property
    def type(self) -> np.ndarray:
        """int "b", row of `TYPES`: in or out of doors, and the most frequent class of things.

        The first in the list on a tie, so also where there is no thing.
        """
        things = CLASSES.index(THINGS[0]) + np.arange(len(THINGS))
        shown = self.objects.active[..., None] & (LABEL[self.objects.kind][..., None] == things)
        return shown.sum(axis=1).argmax(axis=1) + len(THINGS) * self.room.outdoors

    def digest(self) -> str:
        """SHA-256 of all parameters."""
        parts = (self.camera, self.room, self.objects, self.surfaces)
        arrays = [getattr(part, field.name) for part in parts for field in fields(part)]
        return hashlib.sha256(b"".join(a.astype("<f8").tobytes() for a in arrays)).hexdigest()


def draw_world(level: Level, seed: int, split: str, indices: Sequence[int]) -> World:
    """The worlds of `indices`: a pure function of its arguments, scene by scene."""
    draws = Draws(seed, split, indices)
    camera = _camera(draws, level)
    room = _room(draws, level)
    objects = draw_objects(draws, level, Site(camera.focal, room.attitude, room.distances))
    return World(camera, room, objects, _surfaces(draws, level, room.outdoors))


def _camera(draws: Draws, level: Level) -> Camera:
    shift = level.displacement * draws.bell(3) * level.shift
    return Camera(
        focal=draws.uniform(0.66, 1.0),
        pitch=draws.uniform(-0.01, 0.15),
        roll=0.015 * draws.bell(),
        turn=level.displacement * draws.bell(3) * level.turn,
        shift=np.clip(shift, -REACH, REACH),
    )


def _room(draws: Draws, level: Level) -> Room:
    outdoors = draws.chance(level.outdoors)
    yaw = draws.uniform(-0.6, 0.6)
    attitude = rotation(np.broadcast_to(Y, (*yaw.shape, 3)), yaw)
    low = np.array([1.0, 0.8, 1.3, 1.3, 3.5, 1.5])
    high = np.array([1.9, 2.6, 9.0, 9.0, 18.0, 3.0])
    distances = low + (high - low) * draws.unit(FACES)
    place = draws.unit(3)
    lamp = apply(attitude, _lamp(place, distances))
    light = np.where(outdoors[:, None], _sun(place), lamp)
    distances[:, 2:] = np.where(outdoors[:, None], OPEN, distances[:, 2:])
    return Room(outdoors, attitude, distances, light)


def _lamp(place: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """A position below the ceiling, room axes."""
    _, ceiling, left, right, front, back = distances.T
    x = 0.7 * (place[:, 0] * (left + right) - left)
    y = -(0.75 + 0.2 * place[:, 1]) * ceiling
    z = 0.5 * (place[:, 2] * (front + back) - back)
    return np.stack([x, y, z], axis=-1)


def _sun(place: np.ndarray) -> np.ndarray:
    """A position far enough for nearly parallel light, behind or beside the camera."""
    x = 60 * (place[:, 0] - 0.5)
    return np.stack([x, -20 - 20 * place[:, 1], 20 - 50 * place[:, 2]], axis=-1)


def _surfaces(draws: Draws, level: Level, outdoors: np.ndarray) -> Surfaces:
    faces, slots = np.arange(SURFACES) < FACES, (SURFACES,)
    axis = unit(draws.uniform(-1, 1, *slots, 3) + 1e-6)
    axis[:, :FACES] = np.eye(3)[[1, 1, 0, 0, 2, 2]]
    frequency = draws.uniform(0.4, 1.2, *slots) * np.where(faces, 1.0, 2.0)
    surfaces = Surfaces(
        colours=np.stack([draws.colour(level.saturation, *slots) for _ in range(2)], axis=2),
        pattern=draws.choice(level.patterns, *slots),
        frequency=level.fineness * frequency,
        contrast=level.texture * draws.uniform(0.55, 1.0, *slots),
        axis=axis,
        angle=draws.uniform(-1, 1, *slots),
        phase=draws.unit(*slots, 3),
    )
    _paint_sky(surfaces, outdoors)
    return surfaces


def _paint_sky(surfaces: Surfaces, outdoors: np.ndarray) -> None:
    """Outdoors the second face is a sky: pale clouds on blue."""
    sky = (outdoors, 1)
    blue, cloud = surfaces.colours[:, 1, 0], surfaces.colours[:, 1, 1]
    surfaces.colours[*sky, 0] = 0.8 * np.array([0.4, 0.65, 0.95]) + 0.15 * blue[outdoors]
    surfaces.colours[*sky, 1] = 0.8 * np.array([0.9, 0.92, 0.95]) + 0.15 * cloud[outdoors]
    surfaces.pattern[sky] = 3
    surfaces.frequency[sky] = 1 + surfaces.frequency[sky]  # periods per unit of direction
