"""From values to colours: how depth, flow, labels, masks, normals and spread look in every picture.

All functions map tensors "b ... h w" to uint8 "b 3 h w" on the same device. Pictures meant to be
compared (truth beside prediction) share their scale by passing the same limits.
Legend: b = images, h w = pixels. Pixels that are invalid or not finite are painted `VOID`.
"""

from __future__ import annotations

import colorsys
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.types import IGNORE

VOID = (38, 38, 44)
VISIBLE = (86, 180, 233)  # Okabe-Ito sky blue
HIDDEN = (230, 159, 0)  # Okabe-Ito orange

Limit = float | Tensor  # one for all images, or "b 1 1 1"


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
    """Depth "b 1 h w" in matplotlib's Spectral, near red and far blue.

    `lo` and `hi` are the depths at the two ends; left out, they are `depth_limits(depth, valid)`.
    """
    nearest, farthest = depth_limits(depth, valid)
    lo, hi = nearest if lo is None else lo, farthest if hi is None else hi
    return _void(_lookup("Spectral", _unit(depth.float(), lo, hi)), _usable(depth, valid))


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


def colour_labels(labels: Tensor) -> Tensor:
    """Class ids "b h w" in the colours of `palette`; `IGNORE` is void."""
    colours = palette().to(labels.device)[labels.long().clamp(0, 255)]
    return _void(rearrange(colours, "b h w c -> b c h w"), (labels != IGNORE)[:, None])


def colour_mask(modal: Tensor, amodal: Tensor) -> Tensor:
    """Bool masks "b 1 h w": the visible part sky blue, what is claimed behind it orange."""
    painted = torch.where(amodal.bool(), _flat(HIDDEN, modal), _flat(VOID, modal))
    return torch.where(modal.bool(), _flat(VISIBLE, modal), painted)


def colour_normals(normals: Tensor, valid: Tensor | None = None) -> Tensor:
    """Unit normals "b 3 h w" (x right, y down, z forward) in the usual colours.

    Red grows to the right, green upwards, blue towards the viewer, so walls that face the camera
    are blue.
    """
    towards = normals * normals.new_tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    return _void(colour_image(towards.nan_to_num()), _usable(normals, valid))


def colour_spread(spread: Tensor, hi: Limit | None = None, valid: Tensor | None = None) -> Tensor:
    """Disagreement of members "b 1 h w" in matplotlib's inferno from 0 (dark) to `hi` (bright).

    Left out, `hi` is the 98th percentile of each image.
    """
    if hi is None:
        hi = _quantiles(spread, valid, 0.98)[0].nan_to_num(1.0)
    return _void(_lookup("inferno", _unit(spread.float(), 0.0, hi)), _usable(spread, valid))


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
    at = torch.tensor(levels, device=values.device)
    found = torch.nanquantile(rearrange(known, "b 1 h w -> b (h w)"), at, dim=1)
    return tuple(rearrange(row, "b -> b 1 1 1") for row in found)


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


def _colour_wheel(unit_flow: Tensor) -> Tensor:
    """Flow of length at most 1, "b 2 h w", in torchvision's colours.

    `flow_to_image` divides by the longest vector it is given; a margin of unit vectors makes that
    1, whatever the pictures hold.
    """
    from torchvision.utils import flow_to_image  # deferred, as above

    margin = F.pad(unit_flow, (0, 1))
    margin[:, 0, :, -1] = 1.0
    return flow_to_image(margin)[..., :-1]


def _flat(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8, device=like.device).view(1, 3, 1, 1)


def _void(picture: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable, picture, _flat(VOID, picture))
