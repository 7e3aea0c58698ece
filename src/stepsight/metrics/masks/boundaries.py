"""Occluding contours of depth maps whatever their scale (Bochkovskii et al. 2025, section 3.2;
apple/ml-depth-pro, `boundary_metrics.py`).

Of two neighbours one lies in front if its disparity is more than t times the other's. There are
four such relations: the pixel is in front of its left, right, upper or lower neighbour. Scores are
means over thresholds t = 1.05 .. 1.25, weighed by t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.masked import Rows

THRESHOLDS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)


def boundary_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """`boundary_f1` of positive depth `pred "b 1 h w"` against `truth`, where both of two
    neighbours are `valid`: 2PR / (P + R), with P and R each a mean over the four relations of the
    share of predicted, true ones that are true, predicted; 0 where nothing is hit."""
    p, g = (_relations(x.double().reciprocal(), _ratio) for x in (pred, truth))
    known = _relations(valid, torch.logical_and)

    def f1(t: Tensor) -> Tensor:
        found = [(a > t) & both for a, both in zip(p, known)]
        real = [(b > t) & both for b, both in zip(g, known)]
        precision, recall = _share(found, real), _share(real, found)
        return 2 * precision * recall / (precision + recall).clamp(min=1e-12)

    return {"boundary_f1": _over_thresholds(f1)}


def boundary_recall_rows(disparity: Tensor, modal: Tensor, whole: Tensor) -> Rows:
    """`boundary_recall` of the outline of an object that stands before all around it: the share of
    pairs with one pixel on it that are predicted so, of positive `disparity "b 1 h w"`, mean over
    the four relations. Where several predicted relations adjoin along their direction, that of the
    largest ratio stands for them. The object is `whole`, bool "b 1 h w"; `n` counts its pixels, 0
    where a part of it is hidden (not in `modal`), as then it is not in front everywhere."""
    p = _relations(disparity.double(), _ratio)
    g = _relations(whole, lambda one, other: one & ~other)

    def recall(t: Tensor) -> Tensor:
        return _share(g, [_thinned(x, t, along) for x, along in zip(p, (-1, -1, -2, -2))])

    in_view = (modal == whole).flatten(1).all(1)
    count = torch.where(in_view, masked.count(whole), 0.0)
    return {"n": count, "boundary_recall": _over_thresholds(recall)}


def _relations(x: Tensor, relate: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """What `relate` says of a pixel and its left, right, upper and lower neighbour."""
    left, right, up, down = x[..., :-1], x[..., 1:], x[..., :-1, :], x[..., 1:, :]
    return [relate(*pair) for pair in ((right, left), (left, right), (down, up), (up, down))]


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    return one / other


def _share(of: list[Tensor], that_are: list[Tensor]) -> Tensor:
    """The share of one kind of relations that are of another, "b"; 0 without any."""
    shares = [masked.count(a & b) / masked.count(a).clamp(min=1) for a, b in zip(of, that_are)]
    return torch.stack(shares).mean(0)


def _over_thresholds(score: Callable[[Tensor], Tensor]) -> Tensor:
    scores = torch.stack([score(t) for t in THRESHOLDS], dim=-1)
    return scores @ (THRESHOLDS / THRESHOLDS.sum()).to(scores)


def _thinned(ratio: Tensor, t: Tensor, along: int) -> Tensor:
    """Of every run of ratios above t along an axis only the (first) largest, bool."""
    x = ratio.movedim(along, -1)
    above = x > t
    before = torch.cat([torch.zeros_like(above[..., :1]), above[..., :-1]], dim=-1)
    run = (above & ~before).flatten().cumsum(0)[above.flatten()]  # of those above, from 1
    values = x[above]
    places = torch.arange(len(values), device=x.device)
    peaks = values.new_zeros(len(values) + 1).scatter_reduce(0, run, values, "amax")
    highest = torch.where(values == peaks[run], places, len(values))
    first = torch.full_like(peaks, len(values), dtype=torch.long)
    first = first.scatter_reduce(0, run, highest, "amin")
    kept = torch.zeros_like(above)
    kept[above] = places == first[run]
    return kept.movedim(-1, along)
