"""What a surface looks like where a ray meets it: its normal, pattern, colour and light.

Patterns are solid: functions of the point in the surface's own axes, so the sides of a box join up
and a pattern moves with its object. Only exactly rounded arithmetic is used (waves are parabolas
rather than sines) and masks are 0. and 1., which is also the fastest way on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.cast import Hits
from stepsight.data.scenes.geometry.plane import Plane
from stepsight.data.scenes.geometry.rigid import rotation
from stepsight.data.scenes.geometry.views import FACE_NORMALS, CameraView
from stepsight.data.scenes.kinds import CAP, QUADRIC, ROUND
from stepsight.data.scenes.parameters import FACES, World

AMBIENT, FROM_ABOVE, DIRECT = 0.45, 0.14, 0.54  # light from all sides, from above, from the lamp
NEVER = 1e9  # a limit no point reaches
BLUR = 3.0  # patterns fade where a period is not much longer than this many pixels

Look = dict[str, np.ndarray]  # properties of all surfaces, each "n b s"
Seen = dict[str, Tensor]  # the same where each pixel looks, each "n b h w"


def look(world: World) -> Look:
    """The properties of the surfaces that do not depend on the view."""
    return _shape(world) | _pattern(world) | _colour(world)


def _shape(world: World) -> Look:
    """A surface is where the largest of Q, |x| - X, |y| - Y and |z| - X is zero."""
    kind = world.objects.kind
    a, b, c = np.moveaxis(QUADRIC[kind], -1, 0)
    curved = ROUND[kind]
    scenes = len(kind)

    def rows(faces: np.ndarray | float, objects: np.ndarray) -> np.ndarray:
        return np.concatenate([np.broadcast_to(faces, (scenes, FACES)), objects], axis=1)

    inward = -FACE_NORMALS.T
    real = ~world.sky[:, :FACES]
    linear = [rows(n * real, f) for n, f in zip(inward, (0 * b, b / 2, 0 * b), strict=True)]
    return {
        "square": np.stack([rows(0, curved), rows(0, a)]),
        "linear": np.stack(linear),
        "constant": rows(NEVER, np.where(curved, c, -NEVER))[None],
        "limit": np.stack([rows(NEVER, np.where(curved, NEVER, 1)), rows(NEVER, CAP[kind])]),
    }


def _pattern(world: World) -> Look:
    """Pattern coordinates are texture q + phase, in periods; `mix` weighs the patterns."""
    surfaces, half = world.surfaces, world.objects.half
    flat = np.broadcast_to(1 - np.abs(FACE_NORMALS), (len(half), FACES, 3))  # along the face alone
    scale = np.concatenate([flat, half], axis=1) * surfaces.frequency[..., None]
    texture = rotation(surfaces.axis, surfaces.angle) * scale[..., None, :]
    chosen = np.arange(3)[:, None, None] == surfaces.pattern
    return {
        "texture": np.moveaxis(texture, (2, 3), (0, 1)).reshape(9, *surfaces.pattern.shape),
        "phase": np.moveaxis(surfaces.phase, -1, 0),
        "mix": chosen.astype(np.float64),
        "period": (surfaces.frequency * ~world.sky)[None],
    }


def _colour(world: World) -> Look:
    first, second = np.moveaxis(world.surfaces.colours, (2, 3), (0, 1))
    return {
        "mean": (first + second) / 2,
        "swing": (first - second) / 2 * world.surfaces.contrast,
        "ambient": np.where(world.sky, 1.0, AMBIENT)[None],
    }


def look_up(look: Look, view: CameraView, plane: Plane, hits: Hits) -> Seen:
    """The properties, and the view's maps, of the surface each pixel looks at."""
    origin, (wide, high) = np.moveaxis(view.origin, -1, 0), look["limit"]
    maps = {
        "affine": np.moveaxis(view.affine, (2, 3), (0, 1)).reshape(9, *wide.shape),
        "origin": origin,
        "side": np.sign(origin) * (np.abs(origin) > np.stack([wide, high, wide])),
    }
    return gather(look | maps, plane, hits.owner)


def gather(properties: Look, plane: Plane, owner: Tensor) -> Seen:
    """Rows of the tables at the surface numbers `owner` "b h w"."""
    table = np.concatenate(list(properties.values()))
    channels, scenes, rows = table.shape
    first = torch.arange(scenes, device=owner.device)[:, None, None] * rows
    number = (owner.long() + first).flatten()
    values = plane.put(table.reshape(channels, -1)).index_select(1, number)
    split = values.view(channels, *owner.shape).split([len(p) for p in properties.values()])
    return dict(zip(properties, split, strict=True))


def transform(rows: Sequence[Tensor], x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """A matrix by its rows, each "3 b h w", times a vector."""
    return [(row[0] * x).add_(row[1] * y).add_(row[2] * z) for row in rows]


def local_points(seen: Seen, plane: Plane, hits: Hits) -> list[Tensor]:
    """The points seen, in the axes of their surfaces; in the sky the unit direction."""
    x, y = plane.x, plane.y
    distance = (x * x + y * y).add_(1).sqrt_()
    sky = hits.inverse.sign().neg_().add_(1)
    depth = (hits.inverse + sky * distance).reciprocal_()
    m = seen["affine"]
    ray = [(m[i] * x).add_(m[i + 1] * y).add_(m[i + 2]) for i in (0, 3, 6)]
    return [r.mul_(depth).add_(o) for r, o in zip(ray, seen["origin"], strict=True)]


def normals(seen: Seen, point: list[Tensor]) -> Tensor:
    """Unit normals "3 b h w" in camera axes, towards the camera; zero in the sky."""
    x, y, z = point
    (square, square_y), (wide, high) = seen["square"], seen["limit"]
    gx, gz = square * x + seen["linear"][0], square * z + seen["linear"][2]
    gy = square_y * y + seen["linear"][1]
    quadric = (gx * x).add_(gz * z).add_((gy + seen["linear"][1]).mul_(y)).add_(seen["constant"][0])
    side = seen["side"]  # of each pair of caps only that towards the camera can be seen
    over = [(x * side[0]).sub_(wide), (y * side[1]).sub_(high), (z * side[2]).sub_(wide)]
    most = torch.maximum(torch.maximum(over[0], over[1]), over[2])
    curved = (quadric - most).sign_().relu_()
    sides = [(o - most).sign_().add_(1).mul_(s) for o, s in zip(over, side, strict=True)]
    local = [g * curved + s.mul_(1 - curved) for g, s in zip((gx, gy, gz), sides, strict=True)]
    nx, ny, nz = transform([seen["affine"][i::3] for i in range(3)], *local)  # its transpose
    length = (nx * nx).add_(ny * ny).add_(nz * nz).clamp_min_(1e-20).sqrt_()
    return torch.stack([nx.div_(length), ny.div_(length), nz.div_(length)])


def wave(phase: Tensor) -> Tensor:
    """A parabola through the zeros and extremes of sin(2 pi phase): period 1, in [-1, 1]."""
    part = (phase - torch.floor(phase)).sub_(0.5)
    return part.abs().mul_(16).sub_(8).mul_(part)


def pattern(seen: Seen, point: list[Tensor]) -> Tensor:
    """The pattern in [-1, 1]: soft checker, stripes or warped waves, on top of waves like noise."""
    turned = transform(seen["texture"].split(3), *point)
    p, q, r = (t.add_(o) for t, o in zip(turned, seen["phase"], strict=True))
    a, b, c = wave(p), wave(q), wave(r)
    rough = wave((p * 1.9).add_(b * 0.3)).add_(wave((q * 2.3).add_(c * 0.3)))
    rough.add_(wave((r * 2.7).add_(a * 0.3))).add_(wave((p + q).mul_(0.7).add_(r)))
    checker = (a * b).add_(b * c).add_(c * a).mul_(3)
    warped = wave((b * 0.35).add_(p).add_(q * 0.4)).mul_(1.2)
    mix = seen["mix"]
    rough.mul_(0.5).add_(checker.mul_(mix[0])).add_((a * 3).mul_(mix[1])).add_(warped.mul_(mix[2]))
    return rough.clamp_(-1, 1)


def colour(
    seen: Seen,
    plane: Plane,
    view: CameraView,
    hits: Hits,
    point: list[Tensor],
    normal: Tensor,
    shade: Tensor,
) -> Tensor:
    """RGB uint8 "b 3 h w" under Lambert's law; `shade` is 1. in shadow."""
    x, y, w = plane.x, plane.y, hits.inverse
    nx, ny, nz = normal
    facing = (nx * x).add_(ny * y).add_(nz).abs_()
    fade = _fade(seen["period"][0], plane, w, facing)
    value = pattern(seen, point).mul_(fade)
    light = _lambert(plane, view, w, normal).mul_(1 - shade).mul_(DIRECT)
    up = plane.put(view.up.T)[..., None, None]
    above = (nx * up[0]).add_(ny * up[1]).add_(nz * up[2]).mul_(FROM_ABOVE)
    light.add_(above).add_(seen["ambient"][0])
    rgb = torch.empty(w.shape[0], 3, *w.shape[1:], dtype=w.dtype, device=w.device)
    for channel in range(3):
        rgb[:, channel] = (seen["swing"][channel] * value).add_(seen["mean"][channel]).mul_(light)
    return rgb.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _lambert(plane: Plane, view: CameraView, inverse: Tensor, normal: Tensor) -> Tensor:
    """Cosine between the normal and the direction to the light, at least zero."""
    lamp = plane.put(view.light.T)[..., None, None]
    x, y = (inverse * lamp[0]).sub_(plane.x), (inverse * lamp[1]).sub_(plane.y)
    z = (inverse * lamp[2]).sub_(1)
    length = (x * x).add_(y * y).add_(z * z).sqrt_()
    nx, ny, nz = normal
    return (x.mul_(nx)).add_(y.mul_(ny)).add_(z.mul_(nz)).div_(length).relu_()


def _fade(frequency: Tensor, plane: Plane, inverse: Tensor, facing: Tensor) -> Tensor:
    """1 / (1 + f^2) with f the periods of the pattern that fall on `BLUR` pixels."""
    pixel = plane.put(BLUR / plane.focal)[:, None, None]
    periods = (frequency * pixel).div_((inverse * facing).add_(1e-3))
    return periods.square_().add_(1).reciprocal_()
