"""From values to colours: how depth, flow, labels, masks, normals and spread look in every picture.

All functions map tensors "b ... h w" to uint8 "b 3 h w" on the same device. Pictures meant to be
compared (truth beside prediction) share their scale by passing the same limits, and are painted
alike where there is no truth (`veil`). A `Legend` says what the colours of a picture stand for.
Shapes: b = images, h w = pixels. Pixels that are invalid or not finite are painted `VOID`.
"""

from __future__ import annotations

import colorsys
from functools import cache
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from stepsight.measures import number
from stepsight.rowwise import row_quantiles
from stepsight.types import IGNORE

VOID = (208, 208, 208)
NOTHING = (38, 38, 44)  # beside the object of a mask
VISIBLE = (86, 180, 233)  # Okabe-Ito sky blue
HIDDEN = (230, 159, 0)  # Okabe-Ito orange

VEIL = 0.6  # how far a prediction fades to `VOID` where no truth judges it
NEAREST = 1e-3  # metres; keeps the logarithm of a depth finite
BAR, WHEEL = (96, 12), (49, 49)  # height and width of legends, pixels

Limit = float | Tensor  # one for all images, or "b 1 1 1"


class Legend(NamedTuple):
    """What the colours of a picture stand for."""

    picture: Tensor  # uint8 "3 h w"
    top: str  # written above it, of its upper end
    bottom: str


def veil(picture: Tensor, known: Tensor) -> Tensor:
    """A picture uint8 "b 3 h w" of values faded to grey except where `known "b 1 h w"`: what is
    predicted there (a sky without depth) can be seen, but neither praised nor blamed."""
    faded = (1 - VEIL) * picture.float() + VEIL * _flat(VOID, picture).float()
    return torch.where(known, picture, faded.round().to(torch.uint8))


def reference(like: Tensor | None, values: Tensor) -> Tensor:
    """The map "b c h w" whose colour range `values` are shown in: `like`, or themselves in images
    where it is not given or knows no pixel."""
    if like is None:
        return values
    known = like.isfinite().flatten(1).any(dim=1)
    return torch.where(rearrange(known, "b -> b 1 1 1"), like, values)


def colour_image(image: Tensor) -> Tensor:
    """RGB float "b 3 h w" in [-1, 1] as uint8; values outside are clipped."""
    return ((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def depth_limits(depth: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nearest and farthest depth to show, each "b 1 1 1": the 2nd and 98th percentile per image.

    `depth` is "b 1 h w", `valid` bool "b 1 h w". An image without a valid pixel gets (0, 1).
    """
    lo, hi = _quantiles(depth, valid, 0.02, 0.98)
    return lo.nan_to_num(0.0), hi.nan_to_num(1.0)


def colour_depth(
    depth: Tensor,
    valid: Tensor | None = None,
    lo: Limit | None = None,
    hi: Limit | None = None,
) -> Tensor:
    """Depth "b 1 h w" in matplotlib's Spectral, near red and far blue, by its logarithm.

    `lo` and `hi` are the depths at the two ends; left out, they are `depth_limits(depth, valid)`.
    """
    nearest, farthest = depth_limits(depth, valid)
    lo, hi = nearest if lo is None else lo, farthest if hi is None else hi
    unit = _unit(*(_log(x, depth) for x in (depth, lo, hi)))
    return _void(_lookup("Spectral", unit), _usable(depth, valid))


def depth_legend(depth: Tensor) -> Legend:
    """A bar from the nearest depth of the first image of "b 1 h w" (below) to its farthest."""
    lo, hi = (float(limit[0]) for limit in depth_limits(depth))
    shares = torch.linspace(1, 0, BAR[0]).view(1, 1, -1, 1).expand(1, 1, *BAR)
    return Legend(_lookup("Spectral", shares)[0], f"{number(hi)} m", f"{number(lo)} m")


def colour_flow(flow: Tensor, longest: Limit | None = None, valid: Tensor | None = None) -> Tensor:
    """Flow "b 2 h w" in pixels on the colour wheel of Baker et al. (IJCV 2011): hue is direction.

    Colours are fullest at length `longest` (pixels) and stay so beyond it; left out, it is the
    longest valid vector of each image.
    """
    usable = _usable(flow, valid)
    flow = torch.where(usable, flow.float(), 0.0)
    length = flow.norm(dim=1, keepdim=True)
    if longest is None:
        longest = length.amax(dim=(1, 2, 3), keepdim=True)
    longest = torch.as_tensor(longest, device=flow.device).clamp_min(1e-6)
    return _void(_colour_wheel(flow / torch.maximum(length, longest)), usable)


def flow_legend(flow: Tensor) -> Legend:
    """The colour wheel, as wide as the longest vector of the first image of "b 2 h w"."""
    longest = float(flow[0].nan_to_num().norm(dim=0).max())
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in WHEEL), indexing="ij")
    wheel = torch.stack([u, v])[None]
    inside = wheel.norm(dim=1, keepdim=True) <= 1
    painted = torch.where(inside, colour_flow(wheel, 1.0), 255)
    return Legend(painted[0], "motion", f"{number(longest)} px")


def colour_labels(labels: Tensor) -> Tensor:
    """Class ids "b h w" in the colours of `palette`; `IGNORE` is void."""
    colours = palette().to(labels.device)[labels.long().clamp(0, 255)]
    return _void(rearrange(colours, "b h w c -> b c h w"), (labels != IGNORE)[:, None])


def colour_mask(modal: Tensor, amodal: Tensor) -> Tensor:
    """Bool masks "b 1 h w": the visible part sky blue, what is claimed behind it orange."""
    painted = torch.where(amodal.bool(), _flat(HIDDEN, modal), _flat(NOTHING, modal))
    return torch.where(modal.bool(), _flat(VISIBLE, modal), painted)


def mask_legend() -> Legend:
    """The two colours of a mask."""
    parts = [torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1) for colour in (HIDDEN, VISIBLE)]
    return Legend(torch.cat([part.expand(3, 16, 24) for part in parts], dim=1), "hidden", "visible")


def colour_normals(normals: Tensor, valid: Tensor | None = None) -> Tensor:
    """Unit normals "b 3 h w" (x right, y down, z forward) in the usual colours.

    Red grows to the right, green upwards, blue towards the viewer, so walls that face the camera
    are blue.
    """
    towards = normals * normals.new_tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    return _void(colour_image(towards.nan_to_num()), _usable(normals, valid))


def colour_spread(spread: Tensor, hi: Limit | None = None, valid: Tensor | None = None) -> Tensor:
    """Error, or disagreement of members, "b 1 h w" in matplotlib's inferno from 0 (dark) to `hi`.

    Left out, `hi` is the 98th percentile of each image.
    """
    if hi is None:
        hi = spread_limit(spread, valid)
    return _void(_lookup("inferno", _unit(spread.float(), 0.0, hi)), _usable(spread, valid))


def spread_limit(spread: Tensor, valid: Tensor | None = None) -> Tensor:
    """The spread painted brightest, "b 1 1 1": the 98th percentile of each image."""
    return _quantiles(spread, valid, 0.98)[0].nan_to_num(1.0)


@cache
def palette() -> Tensor:
    """256 class colours, uint8 "256 3": hues step by the golden ratio, so neighbours differ."""
    colours = [
        colorsys.hsv_to_rgb(
            0.58 + 0.618034 * label, (0.55, 0.75, 0.4)[label % 3], (0.92, 0.72, 0.82)[label % 3]
        )
        for label in range(256)
    ]
    return (torch.tensor(colours) * 255).round().to(torch.uint8)


def _usable(values: Tensor, valid: Tensor | None) -> Tensor:
    finite = values.isfinite().all(dim=1, keepdim=True)
    return finite if valid is None else finite & valid.bool()


def _quantiles(values: Tensor, valid: Tensor | None, *levels: float) -> tuple[Tensor, ...]:
    """Quantiles over the usable pixels of each image, each "b 1 1 1"; NaN where there are none."""
    known = torch.where(_usable(values, valid), values.float(), torch.nan)
    quantiles = row_quantiles(rearrange(known, "b 1 h w -> b (h w)"), levels)
    return tuple(rearrange(row, "b -> b 1 1 1") for row in quantiles)


def _log(depth: Limit, like: Tensor) -> Tensor:
    return torch.as_tensor(depth, device=like.device).float().clamp_min(NEAREST).log()


def _unit(values: Tensor, lo: Limit, hi: Limit) -> Tensor:
    lo, hi = (torch.as_tensor(limit, device=values.device) for limit in (lo, hi))
    return ((values - lo) / (hi - lo).clamp_min(1e-6)).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)


def _lookup(name: str, unit: Tensor) -> Tensor:
    """Values "b 1 h w" in [0, 1] through a matplotlib colour map."""
    colours = _colour_map(name).to(unit.device)[(unit * 255).round().long()]
    return rearrange(colours, "b 1 h w c -> b c h w")


@cache
def _colour_map(name: str) -> Tensor:
    from matplotlib import colormaps  # deferred: most imports of a task never draw

    return torch.from_numpy(colormaps[name](range(256), bytes=True)[:, :3].copy())


@cache
def _wheel() -> Tensor:
    """The 55 hues "n 3" in [0, 1] of Baker et al. (IJCV 2011): red to yellow, green, cyan, blue,
    magenta and back, in as many steps as the eye tells apart."""
    steps = (15, 6, 4, 11, 13, 6)
    corners = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]])
    ways = zip(steps, corners, corners.roll(-1, 0) - corners)
    parts = [255 * a + way * (255 * torch.arange(n)[:, None] // n) for n, a, way in ways]
    return torch.cat(parts) / 255


def _colour_wheel(unit_flow: Tensor) -> Tensor:
    """Flow of length at most 1, "b 2 h w", as uint8 "b 3 h w": its direction is the place on the
    wheel, and what it lacks in length is white."""
    wheel = _wheel().to(unit_flow.device)
    u, v = unit_flow.unbind(1)
    place = (torch.atan2(-v, -u) / torch.pi + 1) / 2 * (len(wheel) - 1)
    before = place.floor()
    share, at = (place - before)[..., None], before.long()
    hue = (1 - share) * wheel[at] + share * wheel[(at + 1) % len(wheel)]
    length = unit_flow.square().sum(1).sqrt().clamp(max=1)[..., None]
    colour = (255 * (1 - length * (1 - hue))).floor().to(torch.uint8)
    return rearrange(colour, "b h w c -> b c h w")


def _flat(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8, device=like.device).view(1, 3, 1, 1)


def _void(picture: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable, picture, _flat(VOID, picture))
