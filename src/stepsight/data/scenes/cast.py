"""Casting rays at all objects of a batch of worlds: first hits, and what stands in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.rigid import apply
from stepsight.data.scenes.geometry.views import CameraView
from stepsight.data.scenes.kinds import ROUND
from stepsight.data.scenes.parameters import FACES, World
from stepsight.data.scenes.shapes import (
    block_constants,
    enter_block,
    enter_round,
    round_constants,
)

Directions = tuple[Tensor, Tensor, Tensor]  # local x, y, z, each "p h w"
Aim = Callable[["ObjectGroup"], Directions]

TOLERANCE = 1.001  # a point hides itself only if it lies deeper than this times the surface
CACHED = 1 << 16  # rays worked on at once on a CPU, so that they stay in its cache


@dataclass
class ObjectGroup:
    """Objects of a family: `rows` are their surfaces in scene number `scenes`."""

    scenes: np.ndarray  # int "p"
    rows: np.ndarray  # int "p"
    kinds: np.ndarray  # int "p"

    def enter(self, plane: Plane, origin: np.ndarray, aim: Aim) -> Tensor:
        """Inverse distances "p h w" for rays from the local points `origin` "b s 3"."""
        is_round = ROUND[self.kinds[0]]
        constants, enter = (
            (round_constants, enter_round) if is_round else (block_constants, enter_block)
        )
        values = constants(self.kinds, origin[self.scenes, self.rows])
        return enter(plane.put(values)[..., None, None], *aim(self))


@dataclass
class Hits:
    """What the camera rays of a view meet."""

    inverse: Tensor  # "b h w" inverse depth, zero in the sky
    owner: Tensor  # float "b h w", row of the surface
    entries: list[tuple[ObjectGroup, Tensor]]  # per group the inverse depths "p h w" of its objects


def groups(world: World, plane: Plane) -> list[ObjectGroup]:
    """The active objects by family, in pieces that fit the cache."""
    active, kind = world.objects.active, world.objects.kind
    limit = max(1, CACHED // (plane.columns.shape[1] * plane.lines.shape[1]))
    pieces = []
    for family in (True, False):
        scenes, slots = np.nonzero(active & (ROUND[kind] == family))
        limit = limit if plane.device.type == "cpu" else max(1, len(scenes))
        pieces += [
            ObjectGroup(
                scenes[i : i + limit],
                FACES + slots[i : i + limit],
                kind[scenes, slots][i : i + limit],
            )
            for i in range(0, len(scenes), limit)
        ]
    return pieces


def first_hits(view: CameraView, plane: Plane, things: list[ObjectGroup]) -> Hits:
    """Cast the camera rays of all pixels."""
    inverse, owner = _faces(view, plane)
    entries = [
        (group, group.enter(plane, view.origin, _camera_aim(view, plane))) for group in things
    ]
    for group, entry in entries:
        for scene, row, reach in zip(group.scenes.tolist(), group.rows.tolist(), entry):
            _nearer(inverse[scene], owner[scene], reach, row)
    return Hits(inverse, owner, entries)


def _faces(view: CameraView, plane: Plane) -> tuple[Tensor, Tensor]:
    """Inverse depth and row of the face each pixel looks at; the room is convex."""
    columns, lines = plane.spread(view.faces, slice(None))
    inverse = columns[0] + lines[0]
    owner = torch.zeros_like(inverse)
    for row in range(1, FACES):
        _nearer(inverse, owner, columns[row] + lines[row], row)
    return inverse, owner


def _nearer(inverse: Tensor, owner: Tensor, reach: Tensor, row: int) -> None:
    """Let `row` own the pixels where it is nearer. Masks are 0. and 1.: selecting is slower."""
    closer = (reach - inverse).sign_().relu_()
    owner.add_(closer.mul_(owner.neg().add_(row)))
    torch.maximum(inverse, reach, out=inverse)


def _camera_aim(view: CameraView, plane: Plane) -> Aim:
    def aim(group: ObjectGroup) -> Directions:
        columns, lines = plane.spread(view.affine[group.scenes, group.rows], group.scenes)
        x, y, z = (column + line for column, line in zip(columns, lines, strict=True))
        return x, y, z

    return aim


def in_shadow(view: CameraView, plane: Plane, things: list[ObjectGroup], inverse: Tensor) -> Tensor:
    """1. where an object stands between the light and the point seen, else 0.: "b h w".

    A ray leads from the light L to the seen point X = d / w; all lengths are multiplied by w.
    """
    local_light = apply(view.affine, view.light[:, None])

    def aim(group: ObjectGroup) -> Directions:
        columns, lines = plane.spread(view.affine[group.scenes, group.rows], group.scenes)
        lamp = plane.put(local_light[group.scenes, group.rows].T)[..., None, None]
        near = inverse[group.scenes]
        x, y, z = (c + r - near * p for c, r, p in zip(columns, lines, lamp, strict=True))
        return x, y, z

    return blocked(plane, things, local_light + view.origin, aim, inverse)


def blocked(
    plane: Plane, things: list[ObjectGroup], origin: np.ndarray, aim: Aim, inverse: Tensor
) -> Tensor:
    """1. where an object is met before the inverse distance "b h w" on the rays from `origin`."""
    nearest = torch.zeros_like(inverse)
    for group in things:
        for scene, entry in zip(group.scenes.tolist(), group.enter(plane, origin, aim)):
            torch.maximum(nearest[scene], entry, out=nearest[scene])
    return nearest.sub_(inverse * TOLERANCE).sign_().relu_()
