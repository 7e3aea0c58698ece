"""From the parameters of worlds to pictures with everything that is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes import shading
from stepsight.data.scenes.amodal import Chosen, choose
from stepsight.data.scenes.cast import Hits, first_hits, groups, in_shadow
from stepsight.data.scenes.geometry.motion import Landing, land, occluded
from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.views import View, first_view, motion, second_view
from stepsight.data.scenes.kinds import FACE_LABELS, LABEL
from stepsight.data.scenes.parameters import FACES, World
from stepsight.data.scenes.shading import gather
from stepsight.types import Movable

RANGE = 25.0  # metres; what is farther, like the sky, has no valid depth


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


@dataclass
class Picture:
    """One frame: what its rays meet, and how that looks."""

    hits: Hits
    normals: Tensor  # "3 b h w"
    rgb: Tensor  # uint8 "b 3 h w"


class Rendering:
    """Worlds being rendered. Each quantity is computed when first asked for, and once."""

    def __init__(
        self,
        world: World,
        size: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.world = world
        self.plane = Plane.of(world, size, torch.device(device), dtype)
        self.look = shading.look(world)
        self.things = groups(world, self.plane)
        self.moved = motion(world)
        self.view = first_view(world)

    @cached_property
    def view2(self) -> View:
        return second_view(self.view, self.moved)

    @cached_property
    def first(self) -> Picture:
        return self._picture(self.view)

    @cached_property
    def second(self) -> Picture:
        return self._picture(self.view2)

    def _picture(self, view: View) -> Picture:
        hits = first_hits(view, self.plane, self.things)
        return self._shaded(view, hits, in_shadow(view, self.plane, self.things, hits.inverse))

    def _shaded(self, view: View, hits: Hits, shade: Tensor) -> Picture:
        """How it looks under a lamp; `shade` "b h w" is 1. in shadow."""
        plane = self.plane
        seen = shading.look_up(self.look, view, plane, hits)
        point = shading.local_points(seen, plane, hits)
        normals = shading.normals(seen, point)
        rgb = shading.colour(seen, plane, view, hits, point, normals, shade)
        return Picture(hits, normals, rgb)

    @cached_property
    def landing(self) -> Landing:
        return land(self.moved, self.plane, self.first.hits)

    @cached_property
    def landing_back(self) -> Landing:
        return land(self.moved.inverse(), self.plane, self.second.hits)

    def fields(self, quantities: frozenset[str]) -> dict[str, Tensor]:
        """The fields of a `Sample` with leading "b"; only what is asked for is computed."""
        found = {"image": self.first.rgb}
        for quantity in sorted(quantities):
            found |= getattr(self, quantity)()
        return found

    def depth(self) -> dict[str, Tensor]:
        inverse = self.first.hits.inverse
        return {"depth": _depth(inverse), "depth_valid": (inverse > 1 / RANGE)[:, None]}

    def flow(self) -> dict[str, Tensor]:
        there = self.landing
        return {"second": self.second.rgb, "flow": there.flow, "flow_valid": there.valid[:, None]}

    def labels(self) -> dict[str, Tensor]:
        objects = LABEL[self.world.objects.kind]
        faces = np.broadcast_to(FACE_LABELS, (len(objects), FACES))
        table = {"label": np.concatenate([faces, objects], axis=1)[None].astype(np.float64)}
        return {"labels": gather(table, self.plane, self.first.hits.owner)["label"][0].long()}

    def amodal(self) -> dict[str, Tensor]:
        chosen, shape = self.chosen, self.first.hits.owner[:, None].shape
        return {
            "modal": chosen.modal[:, None],
            "amodal": chosen.amodal[:, None],
            "amodal_valid": chosen.valid[:, None, None, None].expand(shape),
        }

    def whole(self) -> dict[str, Tensor]:
        """The chosen object alone, out of the shadows of the others, with its masks."""
        alone = self.chosen.alone
        rgb = self._shaded(self.view, alone, torch.zeros_like(alone.inverse)).rgb
        return {"whole": rgb.masked_fill_(~self.chosen.amodal[:, None], 255), **self.amodal()}

    def class_id(self) -> dict[str, Tensor]:
        return {"class_id": torch.from_numpy(self.world.type)}

    def normals(self) -> dict[str, Tensor]:
        normals, inverse = self.first.normals, self.first.hits.inverse
        return {"normals": normals.transpose(0, 1), "normals_valid": (inverse > 0)[:, None]}

    @cached_property
    def chosen(self) -> Chosen:
        return choose(self.first.hits)

    def frames(self) -> Frames:
        """Everything."""
        there, back = self.landing, self.landing_back
        return Frames(
            rgb=self.first.rgb,
            rgb2=self.second.rgb,
            depth2=_depth(self.second.hits.inverse),
            flow=there.flow,
            flow_back=back.flow,
            flow_valid=there.valid[:, None],
            occluded=occluded(self.view2, self.plane, self.things, there)[:, None],
            occluded_back=occluded(self.view, self.plane, self.things, back)[:, None],
            instance=(self.first.hits.owner - (FACES - 1)).relu_().long(),
            hidden=self.chosen.hidden,
            intrinsics=self.plane.intrinsics(),
            **self.depth(),
            **self.labels(),
            **self.amodal(),
            **self.normals(),
        )


def _depth(inverse: Tensor) -> Tensor:
    """Metres "b 1 h w", at most RANGE."""
    return inverse.clamp_min(1 / RANGE).reciprocal_()[:, None]
