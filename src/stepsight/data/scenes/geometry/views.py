"""A world as its two cameras see it: affine maps, planes and rigid motions in camera axes.

Camera axes: x right, y down, z forward. All of it is float64 in exactly rounded arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepsight.data.scenes.geometry.rigid import (
    X,
    Z,
    apply,
    dot,
    product,
    rotation,
    transpose,
    turn,
)
from stepsight.data.scenes.geometry.rigid import Y as DOWN
from stepsight.data.scenes.parameters import FACES, World

# Outward normals of the faces in room axes: floor, ceiling, left, right, front, back.
FACE_NORMALS = np.stack([DOWN, -DOWN, -X, X, Z, -Z])


@dataclass
class CameraView:
    """What a camera needs. A surface's local point is q = affine X + origin for camera point X.

    Locally an object is its unit shape, and the faces share the axes of the room, in metres.
    """

    affine: np.ndarray  # "b s 3 3"
    origin: np.ndarray  # "b s 3"
    faces: np.ndarray  # "b 6 3": the face is {X: faces . X = 1}; zero where there is only sky
    light: np.ndarray  # "b 3"
    up: np.ndarray  # "b 3" unit


@dataclass
class Motion:
    """A surface's point X moves to X + turn X + shift, in the axes of the camera it is seen by."""

    turn: np.ndarray  # "b s 3 3"; rotation minus identity, exactly zero when nothing moves
    shift: np.ndarray  # "b s 3"


def first_view(world: World) -> CameraView:
    """Camera 1, at the origin of the world."""
    room, objects = world.room, world.objects
    to_world = _attitude(world)
    to_camera = transpose(to_world)
    room_axes = product(transpose(room.attitude), to_world)
    stretch = product(transpose(objects.attitude), to_world[:, None]) / objects.half[..., None]
    placed = -apply(transpose(objects.attitude), objects.centre) / objects.half
    faces = np.repeat(room_axes[:, None], FACES, axis=1)
    normals = apply(transpose(room_axes)[:, None], FACE_NORMALS) / room.distances[..., None]
    real = np.where(room.outdoors[:, None], np.arange(FACES) == 0, True)
    return CameraView(
        affine=np.concatenate([faces, stretch], axis=1),
        origin=np.concatenate([np.zeros_like(faces[..., 0]), placed], axis=1),
        faces=normals * real[..., None],
        light=apply(to_camera, room.light),
        up=apply(to_camera, -DOWN),
    )


def _attitude(world: World) -> np.ndarray:
    """Rotation "b 3 3", world from camera 1: pitched down, then rolled about its axis."""
    pitch, roll = world.camera.pitch, world.camera.roll
    along = (*pitch.shape, 3)
    return product(
        rotation(np.broadcast_to(X, along), -pitch), rotation(np.broadcast_to(Z, along), roll)
    )


def motion(world: World) -> Motion:
    """How every surface moves from frame 1 to frame 2, in the axes of cameras 1 and 2.

    With X the point in camera 1, R its attitude and c the object's centre, the world point R X
    moves to R X + S (R X - c) + slide, S being spin - identity; camera 2 sits at `shift` with
    attitude R T. Hence X moves to T^-1 (X + R^-1 (S R X - S c + slide - shift)).
    """
    camera, objects = world.camera, world.objects
    to_world = _attitude(world)[:, None]
    to_camera = transpose(to_world)
    spin = turn(np.broadcast_to(DOWN, objects.slide.shape), objects.spin)
    still = np.zeros((len(spin), FACES, 3, 3))
    spun = np.concatenate([still, product(to_camera, product(spin, to_world))], axis=1)
    slide = objects.slide - apply(spin, objects.centre) - camera.shift[:, None]
    passing = np.repeat(-camera.shift[:, None], FACES, axis=1)
    passing[world.room.outdoors, 1] = 0  # the sky is at infinity
    shift = apply(to_camera, np.concatenate([passing, slide], axis=1))
    pan = _pan(camera.turn)[:, None]
    return Motion(pan + spun + product(pan, spun), shift + apply(pan, shift))


def _pan(half_tangents: np.ndarray) -> np.ndarray:
    """Inverse of the camera's turn (pitch, then yaw, then roll) minus identity, "b 3 3"."""
    total = np.zeros((len(half_tangents), 3, 3))
    for axis, angle in zip((X, DOWN, Z), half_tangents.T, strict=True):
        part = turn(np.broadcast_to(axis, (len(angle), 3)), -angle)
        total = total + part + product(total, part)
    return total


def second_view(first: CameraView, moved: Motion) -> CameraView:
    """Camera 2; bit for bit camera 1 when nothing moves."""
    back = transpose(moved.turn)
    affine = first.affine + product(first.affine, back)
    rigid, shift = moved.turn[:, :1], moved.shift[:, :1]  # of the floor: the camera's own motion
    normals = first.faces + apply(rigid, first.faces)
    return CameraView(
        affine=affine,
        origin=first.origin - apply(affine, moved.shift),
        faces=normals / (1 + dot(normals, shift))[..., None],
        light=first.light + apply(rigid[:, 0], first.light) + shift[:, 0],
        up=first.up + apply(rigid[:, 0], first.up),
    )
