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
from stepsight.data.scenes.geometry.motion import Landing, land
from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.views import CameraView, first_view, motion, second_view
from stepsight.data.scenes.kinds import FACE_LABELS, LABEL
from stepsight.data.scenes.parameters import FACES, World
from stepsight.data.scenes.shading import gather

RANGE = 25.0  # metres; what is farther, like the sky, has no valid depth


@dataclass
class RenderedFrame:
    """A frame: what its rays meet, and how that looks."""

    hits: Hits
    normals: Tensor  # "3 b h w"
    rgb: Tensor  # uint8 "b 3 h w"


class Rendering:
    """Worlds being rendered. Each quantity is computed when first needed, and once."""

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
    def view2(self) -> CameraView:
        return second_view(self.view, self.moved)

    @cached_property
    def first(self) -> RenderedFrame:
        return self._frame(self.view)

    @cached_property
    def second(self) -> RenderedFrame:
        return self._frame(self.view2)

    def _frame(self, view: CameraView) -> RenderedFrame:
        hits = first_hits(view, self.plane, self.things)
        return self._shaded(view, hits, in_shadow(view, self.plane, self.things, hits.inverse))

    def _shaded(self, view: CameraView, hits: Hits, shade: Tensor) -> RenderedFrame:
        """How it looks under a lamp; `shade` "b h w" is 1. in shadow."""
        plane = self.plane
        seen = shading.look_up(self.look, view, plane, hits)
        point = shading.local_points(seen, plane, hits)
        normals = shading.normals(seen, point)
        rgb = shading.colour(seen, plane, view, hits, point, normals, shade)
        return RenderedFrame(hits, normals, rgb)

    @cached_property
    def landing(self) -> Landing:
        return land(self.moved, self.plane, self.first.hits)

    def fields(self, quantities: frozenset[str]) -> dict[str, Tensor]:
        """The fields of a `Sample` with leading "b"; nothing else is computed."""
        values = {"image": self.first.rgb}
        for quantity in sorted(quantities):
            values |= getattr(self, quantity)()
        return values

    def depth(self) -> dict[str, Tensor]:
        inverse = self.first.hits.inverse
        return {"depth": metres(inverse), "depth_valid": (inverse > 1 / RANGE)[:, None]}

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


def metres(inverse: Tensor) -> Tensor:
    """Depth "b 1 h w", at most RANGE."""
    return inverse.clamp_min(1 / RANGE).reciprocal_()[:, None]
