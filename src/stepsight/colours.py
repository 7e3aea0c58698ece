"""From values to colours: how depth, flow, labels, masks, normals and spread look in every picture.

All functions map tensors "b ... h w" to uint8 "b 3 h w" on the same device. Pictures meant to be
compared (truth beside prediction) share their scale by passing the same limits, and are painted
alike where there is no truth (`only`). A `Legend` says what the colours of a picture stand for.
Shapes: b = images, h w = pixels. Pixels that are invalid or not finite are painted `VOID`.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from functools import cache, partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.legends import NUMBERED, ClassColour, Legend
from stepsight.rowwise import row_quantiles
from stepsight.types import IGNORE

VOID = (0xD0, 0xD0, 0xD0)  # as `legends.VOID`
NOTHING = (38, 38, 44)  # beside the object of a mask
VISIBLE = (86, 180, 233)  # Okabe-Ito sky blue
HIDDEN = (230, 159, 0)  # Okabe-Ito orange

NEAREST = 1e-3  # metres; keeps the logarithm of a depth finite
SPARSE = 0.5  # share of pixels with a truth below which it is points, with gaps between them
GAPS = 16  # of them fit along the longer side of a picture
HUES = 24  # of the wheel of directions in a legend

Limit = float | Tensor  # one for all images, or "b 1 1 1"


def only(picture: Tensor, known: Tensor) -> Tensor:
    """A picture uint8 "b 3 h w" of values, void wherever the truth is too: `known` bool "b 1 h w"
    says where it is not. Of truth in points (of a laser) the gaps between them are shown, and where
    nothing at all is known, everything."""
    return torch.where(_without_gaps(known), picture, _flat(VOID, picture))


def _without_gaps(known: Tensor) -> Tensor:
    """Sparse masks "b 1 h w" closed, that is grown and shrunk again, and empty ones full."""
    share = known.float().mean(dim=(1, 2, 3), keepdim=True)
    known, sparse = known | (share == 0), share < SPARSE
    reach = max(known.shape[-2:]) // GAPS // 2
    if not reach or not bool(sparse.any()):
        return known
    grow = partial(F.max_pool2d, kernel_size=2 * reach + 1, stride=1, padding=reach)
    closed = -grow(-grow(known.float())) > 0
    return torch.where(sparse, closed, known)


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


def depth_legend(lo: float, hi: float, unit: str = "m") -> Legend:
    """Of `colour_depth` between two depths."""
    ends = {"low": max(lo, NEAREST), "high": hi, "unit": unit}
    return Legend("values", _stops("Spectral", 11), **ends, log=True, invalid_means="no true depth")


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


def flow_legend(longest: float) -> Legend:
    """Of `colour_flow` up to a length in pixels."""
    angle = torch.arange(HUES) * (2 * math.pi / HUES)  # v points down, so they go clockwise
    hues = colour_flow(torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, HUES), 1.0)
    stops = _hex(rearrange(hues, "1 c 1 n -> n c"))
    return Legend("flow", stops, high=longest, unit="px", invalid_means="no true flow")


def colour_labels(labels: Tensor) -> Tensor:
    """Class ids "b h w" in the colours of `palette`; `IGNORE` is void."""
    colours = palette().to(labels.device)[labels.long().clamp(0, 255)]
    return _void(rearrange(colours, "b h w c -> b c h w"), (labels != IGNORE)[:, None])


def labels_legend(labels: Tensor) -> Legend:
    """Of `colour_labels` for the classes that occur, by number: sources know their names."""
    found = [int(label) for label in labels.unique() if label != IGNORE]
    colours = _hex(palette()[found])
    classes = [ClassColour(NUMBERED.format(i), colour) for i, colour in zip(found, colours)]
    return Legend("classes", classes=tuple(classes), invalid_means="no label")


def colour_mask(modal: Tensor, amodal: Tensor) -> Tensor:
    """Bool masks "b 1 h w": the visible part sky blue, what is claimed behind it orange."""
    painted = torch.where(amodal.bool(), _flat(HIDDEN, modal), _flat(NOTHING, modal))
    return torch.where(modal.bool(), _flat(VISIBLE, modal), painted)


def mask_legend() -> Legend:
    """Of `colour_mask`."""
    parts = {"visible": VISIBLE, "hidden": HIDDEN, "not the object": NOTHING}
    colours = _hex(torch.tensor([*parts.values()]))
    return Legend("mask", classes=tuple(map(ClassColour, parts, colours)))


def colour_normals(normals: Tensor, valid: Tensor | None = None) -> Tensor:
    """Unit normals "b 3 h w" (x right, y down, z forward) in the usual colours.

    Red grows to the right, green upwards, blue towards the viewer, so walls that face the camera
    are blue.
    """
    towards = normals * normals.new_tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    return _void(colour_image(towards.nan_to_num()), _usable(normals, valid))


def normals_legend() -> Legend:
    """Of `colour_normals`: surfaces that face four ways."""
    ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "the viewer": (0, 0)}
    facing = torch.tensor([(x, y, 0.0 if x or y else -1.0) for x, y in ways.values()])
    colours = _hex(rearrange(colour_normals(facing[..., None, None]), "n c 1 1 -> n c"))
    classes = tuple(ClassColour(f"facing {way}", one) for way, one in zip(ways, colours))
    return Legend("classes", classes=classes, invalid_means="no true normal")


def colour_spread(spread: Tensor, hi: Limit | None = None, valid: Tensor | None = None) -> Tensor:
    """Error, or disagreement of members, "b 1 h w" in matplotlib's inferno from 0 (dark) to `hi`.

    Left out, `hi` is the 98th percentile of each image.
    """
    if hi is None:
        hi = spread_limit(spread, valid)
    return _void(_lookup("inferno", _unit(spread.float(), 0.0, hi)), _usable(spread, valid))


def spread_legend(spread: Tensor, hi: float | None = None, unit: str = "") -> Legend:
    """Of `colour_spread` for the first of "b 1 h w"."""
    hi = float(spread_limit(spread)[0]) if hi is None else hi
    return Legend("values", _stops("inferno", 16), high=hi, unit=unit, invalid_means="not scored")


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


def _stops(name: str, count: int) -> tuple[str, ...]:
    """So many colours of a matplotlib colour map, evenly spaced from its first to its last."""
    return _hex(_colour_map(name)[torch.linspace(0, 255, count).round().long()])


def _hex(colours: Iterable[Tensor]) -> tuple[str, ...]:
    """Colours "n 3" from 0 to 255 as "#rrggbb"."""
    return tuple("#" + bytes(colour.tolist()).hex() for colour in colours)


def _flat(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8, device=like.device).view(1, 3, 1, 1)


def _void(picture: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable, picture, _flat(VOID, picture))
