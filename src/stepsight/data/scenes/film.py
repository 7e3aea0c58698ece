"""Films of procedural worlds: known depth in every frame, known flow from each frame to the next.

Camera and objects go to and fro between their places in the two frames of a still scene, where
nothing collides, each axis at its own pace. A sweep eases in and out (3 u^2 - 2 u^3), so that speed
varies and no frame repeats the one before it. As scenes, films are a pure function of (settings,
index), in exactly rounded arithmetic as far as their parameters go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.geometry.motion import land
from stepsight.data.scenes.geometry.rigid import apply, product, transpose
from stepsight.data.scenes.geometry.views import Motion, motion, second_view
from stepsight.data.scenes.levels import level_of
from stepsight.data.scenes.parameters import World, draw_world
from stepsight.data.scenes.render import RANGE, RenderedFrame, Rendering, metres
from stepsight.metrics.photometric import inside, warped
from stepsight.types import Sample

SWEEP = 6  # frames from one end to the other, of what moves at pace 1
# sweeps of each axis per sweep of pace 1: pitch, yaw, roll; right, down, forward; objects
TURN_PACE, SHIFT_PACE, SLIDE_PACE = (0.6, 0.8, 1.0), (1.0, 0.9, 0.5), 0.7
SAME = 0.02  # of the depth: where what is fetched lies so near, it is the point itself


class SceneFilm:
    """Film number `index` of `settings`: `len` frames as samples, in their order.

    Each has `second`, the next frame, and the flow to it with where it is hidden (`occluded`), but
    for the last, which has depth alone. still: nothing moves.
    """

    def __init__(
        self, settings: ScenesSettings, index: int, frames: int = 64, still: bool = False
    ) -> None:
        level = level_of(settings)
        world = draw_world(level, settings.seed, "film", [index])
        self.settings, self.index, self.count, self.still = settings, index, frames, still
        self._world = world

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        shots = (self._shot(number) for number in range(self.count))
        now = next(shots)
        for number in range(self.count):
            then = next(shots, None)
            yield self._sample(number, now, then)
            if then is not None:
                now = then

    @cached_property
    def _rendering(self) -> Rendering:
        return Rendering(self._world, self.settings.size)

    def _shot(self, number: int) -> tuple[Motion, RenderedFrame]:
        """Where everything has moved to since the first frame, and how that looks."""
        moved = motion(_at(self._world, 0.0 if self.still else number / SWEEP))
        return moved, self._rendering._frame(second_view(self._rendering.view, moved))

    def _sample(
        self,
        number: int,
        now: tuple[Motion, RenderedFrame],
        then: tuple[Motion, RenderedFrame] | None,
    ) -> Sample:
        (moved, frame), inverse = now, now[1].hits.inverse
        key = f"{self.settings.level}-film-{self.settings.seed}-{self.index}/{number:04d}"
        sample = Sample(image=frame.rgb[0].clone(), key=key, source="films")
        sample.depth = metres(inverse.clone())[0]
        sample.depth_valid = inverse > 1 / RANGE
        if then is None:
            return sample
        landing = land(between(moved, then[0]), self._rendering.plane, frame.hits)
        there = warped(then[1].hits.inverse[:, None], landing.flow)[:, 0]
        seen = (there - landing.inverse).abs() <= SAME * landing.inverse
        return replace(
            sample,
            second=then[1].rgb[0].clone(),
            flow=landing.flow[0],
            flow_valid=landing.valid,
            occluded=~(seen & inside(landing.flow)[:, 0]),
        )


def between(first: Motion, second: Motion) -> Motion:
    """From where `first` has moved things to where `second` has: with X_i = R_i X + s_i it is
    R_2 R_1' X_1 + s_2 - R_2 R_1' s_1."""
    eye = np.eye(3)
    turned = product(eye + second.turn, transpose(eye + first.turn))
    return Motion(turned - eye, second.shift - apply(turned, first.shift))


def _at(world: World, sweeps: float) -> World:
    """The world with camera and objects as far on their ways as after so many sweeps."""
    camera, objects = world.camera, world.objects
    slide = _way(sweeps * SLIDE_PACE)
    return replace(
        world,
        camera=replace(
            camera,
            turn=camera.turn * [_way(sweeps * pace) for pace in TURN_PACE],
            shift=camera.shift * [_way(sweeps * pace) for pace in SHIFT_PACE],
        ),
        objects=replace(objects, slide=objects.slide * slide, spin=objects.spin * slide),
    )


def _way(sweeps: float) -> float:
    """0 at one end, 1 at the other, and back."""
    u = abs((sweeps + 1) % 2 - 1)
    return u * u * (3 - 2 * u)
