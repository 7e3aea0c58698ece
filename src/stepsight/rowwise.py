"""Rows of maps: picked and added to in whole stretches of memory, and their quantiles.

torch's own indexing walks through maps in channels_last memory place by place, or leaves them in
another format, which every later operation then pays for: both directions are several times as
fast on a row that is one stretch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def picked_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x "b ..." at `rows` "r", in the memory format of x."""
    if x.ndim < 2:
        return x[rows]
    return _back(_flat(x).index_select(0, rows), x)


def added_rows(x: Tensor, more: Tensor, rows: Tensor) -> Tensor:
    """x "b ..." with `more` "r ..." added at `rows` "r", all different, in the memory format of
    x."""
    return _back(_flat(x).index_add(0, rows, _flat(more.to(x.dtype), like=x)), x)


def row_quantiles(x: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles "k b" of what is not NaN in each row of x "b n", float32, by linear interpolation;
    NaN where a row holds nothing else. torch's own need float64, which not every device has."""
    if x.device.type == "cpu":
        return torch.nanquantile(x, x.new_tensor(levels), dim=1)
    ordered, count = x.sort(dim=1).values, (~x.isnan()).sum(dim=1, keepdim=True)
    last, found = (count - 1).clamp_min(0), list[Tensor]()
    for level in levels:
        place = level * last.float()
        low = place.long().minimum(last)
        below, above = ordered.gather(1, low), ordered.gather(1, (low + 1).minimum(last))
        found.append(torch.lerp(below, above, place - low)[:, 0])
    return torch.stack(found)


def _flat(x: Tensor, like: Tensor | None = None) -> Tensor:
    """ "b n", in the order of memory."""
    return (x.permute(0, 2, 3, 1) if _nhwc(x if like is None else like) else x).flatten(1)


def _back(flat: Tensor, like: Tensor) -> Tensor:
    if _nhwc(like):
        channels, height, width = like.shape[1:]
        return flat.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
    return flat.unflatten(1, like.shape[1:])


def _nhwc(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
