"""Two frames of procedural worlds with everything that is true of them, for the tests of geometry.

Sources give of this what a `Sample` holds; the truth of the second frame and the occlusions are
derived here from the same ray casting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.cast import Directions, ObjectGroup, blocked
from stepsight.data.scenes.geometry.motion import Landing, land
from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.rigid import apply, transpose
from stepsight.data.scenes.geometry.views import CameraView, Motion
from stepsight.data.scenes.parameters import FACES
from stepsight.data.scenes.render import Rendering, metres
from stepsight.data.scenes.source import Scenes
from stepsight.types import Movable


@dataclass
class Frames(Movable):
    """Two frames of `b` worlds and their truth. Fields ending in 2 or _back belong to frame 2."""

    rgb: Tensor  # uint8 "b 3 h w"
    rgb2: Tensor
    depth: Tensor  # float32 "b 1 h w", metres along the optical axis, at most RANGE
    depth2: Tensor
    depth_valid: Tensor  # bool "b 1 h w", False in the sky and beyond RANGE
    flow: Tensor  # float32 "b 2 h w", pixels: u right, v down
    flow_back: Tensor
    flow_valid: Tensor  # bool "b 1 h w", False for points behind the other camera
    occluded: Tensor  # bool "b 1 h w": not visible in the other frame, or outside it
    occluded_back: Tensor
    normals: Tensor  # float32 "b 3 h w", unit, towards the camera; zero in the sky
    normals_valid: Tensor  # bool "b 1 h w", False in the sky
    labels: Tensor  # int64 "b h w", index into CLASSES
    instance: Tensor  # int64 "b h w": 0 for the room, else 1 + slot of the object
    modal: Tensor  # bool "b 1 h w", the visible part of the chosen object
    amodal: Tensor  # bool "b 1 h w", all of it inside the image
    amodal_valid: Tensor  # bool "b 1 h w", False throughout where no object shows
    hidden: Tensor  # float32 "b", fraction of the amodal mask that is hidden
    intrinsics: Tensor  # float32 "b 4": fx, fy, cx, cy in pixels; pixel centres are integers


def frames_of(scene: Rendering) -> Frames:
    """Both frames of the worlds being rendered."""
    back = land(inverse(scene.moved), scene.plane, scene.second.hits)
    return Frames(
        rgb=scene.first.rgb,
        rgb2=scene.second.rgb,
        depth2=metres(scene.second.hits.inverse),
        flow=scene.landing.flow,
        flow_back=back.flow,
        flow_valid=scene.landing.valid[:, None],
        occluded=occluded(scene.view2, scene.plane, scene.things, scene.landing)[:, None],
        occluded_back=occluded(scene.view, scene.plane, scene.things, back)[:, None],
        instance=(scene.first.hits.owner - (FACES - 1)).relu_().long(),
        hidden=scene.chosen.hidden,
        intrinsics=intrinsics(scene.plane),
        **scene.depth(),
        **scene.labels(),
        **scene.amodal(),
        **scene.normals(),
    )


def frames_in(source: Scenes, indices: Sequence[int]) -> Frames:
    """Both frames of some scenes of a source."""
    parts = [frames_of(scene) for scene in source.renderings(indices)]
    names = [field.name for field in fields(Frames)]
    return Frames(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def inverse(motion: Motion) -> Motion:
    back = transpose(motion.turn)
    return Motion(back, -(motion.shift + apply(back, motion.shift)))


def intrinsics(plane: Plane) -> Tensor:
    """fx, fy, cx, cy in pixels: "b 4"."""
    size = plane.columns.shape[1], plane.lines.shape[1]
    centre = np.broadcast_to([(n - 1) / 2 for n in size], (len(plane.focal), 2))
    focal = plane.focal[:, None]
    return plane.put(np.concatenate([focal, focal, centre], axis=1))


def occluded(view: CameraView, plane: Plane, things: list[ObjectGroup], landing: Landing) -> Tensor:
    """bool "b h w": the point is behind an object, or outside the image, of the other `view`."""

    def aim(group: ObjectGroup) -> Directions:
        forms = plane.put(np.moveaxis(view.affine[group.scenes, group.rows], 0, -1))
        u, v = landing.x[group.scenes], landing.y[group.scenes]
        first, second, third = (
            (u * form[0]).add_(v * form[1]).add_(form[2]) for form in forms[..., None, None]
        )
        return first, second, third

    hidden = blocked(plane, things, view.origin, aim, landing.inverse)
    edge = (0.5 / plane.put(plane.focal))[:, None, None]
    right, bottom = plane.x[..., -1:] + edge, plane.y[:, -1:] + edge
    outside = (landing.x.abs() > right) | (landing.y.abs() > bottom)
    return hidden.bool() | outside | ~landing.valid
