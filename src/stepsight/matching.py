"""Local cost volumes between two frames, without parameters: which shift explains each place?

Networks that see two frames side by side do not learn to match them from little data; the answer to
"how well does the second frame, shifted by (dx, dy), fit here?" is easily computed and enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

COLOUR_RANGE = 2  # of [-1, 1], against the 1 of the cost's definition


def cost_volume(
    first: Tensor,
    second: Tensor,
    *,
    stride: int = 2,
    radius: int = 4,
    window: int = 5,
    sharpness: float = 20.0,
    gain: float = 4.0,
) -> Tensor:
    """Matching scores of two frames "b 3 h w" in [-1, 1]: "b k h/stride w/stride".

    Both frames are averaged to 1/stride and compared at k = (2 radius + 1)^2 shifts. The cost of a
    shift is the sum over the channels of the absolute difference, with colours scaled to [0, 1],
    averaged over a square of `window` (odd) cells; the scores are `gain * softmax(-sharpness *
    cost)` over the shifts. So every place sums to `gain`, shared by shifts that fit equally well.

    Channel (dy + radius) * (2 radius + 1) + dx + radius holds the shift by dx cells to the right
    and dy down: there `first` at (x, y) looks like `second` at (x + dx, y + dy), a flow of
    (stride dx, stride dy) pixels. Beyond the frame the second image repeats its edge.
    """
    costs = mean_costs(first, second, [window], stride=stride, radius=radius)[0]
    return scores(costs, sharpness, gain)


def mean_costs(
    first: Tensor, second: Tensor, windows: Sequence[int], *, stride: int = 2, radius: int = 4
) -> list[Tensor]:
    """The costs of `cost_volume`, "b k h/stride w/stride" in [0, 3], averaged over each window."""
    assert first.shape == second.shape, "frames of one size"
    assert first.shape[2] % stride == 0 and first.shape[3] % stride == 0, "whole cells"
    assert all(window % 2 == 1 for window in windows), "a window has a centre"
    costs = _differences(F.avg_pool2d(first, stride), F.avg_pool2d(second, stride), radius)
    return [_box_sum(costs, window) / (COLOUR_RANGE * window**2) for window in windows]


def scores(costs: Tensor, sharpness: float, gain: float = 4.0) -> Tensor:
    """Softmax over the shifts "b k h w" of the negative costs, times `gain`."""
    return (costs * -sharpness).softmax(dim=1) * gain


def _differences(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Summed absolute colour difference of every shift: "b c h w" twice -> "b k h w"."""
    b, _, h, w = first.shape
    side = 2 * radius + 1
    padded = F.pad(second, [radius] * 4, mode="replicate")
    if torch.compiler.is_exporting():
        return _gathered(first, padded, side)
    costs = first.new_empty(b, side**2, h, w)
    for dy in range(side):
        for dx in range(side):
            shifted = padded[:, :, dy : dy + h, dx : dx + w]
            costs[:, dy * side + dx] = (shifted - first).abs_().sum(dim=1)
    return costs


def _gathered(first: Tensor, padded: Tensor, side: int) -> Tensor:
    """The same of all shifts at once: in a graph a shift after the other is hundreds of nodes."""
    for dim in (2, 3):
        shifts, places = (torch.arange(n, device=first.device) for n in (side, first.shape[dim]))
        padded = padded.index_select(dim, (shifts[:, None] + places).flatten())
    shifted = rearrange(padded, "b c (y h) (x w) -> b (y x) c h w", y=side, x=side)
    return (shifted - first[:, None]).abs().sum(dim=2)


def _box_sum(volume: Tensor, window: int) -> Tensor:
    """Sum over window x window cells, with repeated edges; several times avg_pool2d's CPU speed."""
    reach = window // 2
    for dim, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        size = volume.shape[dim]
        padded = F.pad(volume, padding, mode="replicate")
        volume = padded.narrow(dim, 0, size).clone()
        for offset in range(1, window):
            volume += padded.narrow(dim, offset, size)
    return volume
