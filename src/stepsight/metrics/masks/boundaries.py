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

REACH = (1, 2, 3)  # pixels
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


def contour_rows(pred: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """`contour_f1_Npx`, N = 1, 2, 3, of positive depth `pred "b 1 h w"` against `truth`: over pairs
    of a pixel at least N from the border and another within N of it, both `valid`, the F1 of pairs
    in which the other is farther by a factor of more than 1 + t, mean over t = 0.05 .. 0.25 weighed
    by t (microsoft/MoGe, `test/metrics.py`: boundary_f1)."""
    return {
        f"contour_f1_{n}px": _contour_f1(pred.double(), truth.double(), valid, n) for n in REACH
    }


def _contour_f1(pred: Tensor, truth: Tensor, valid: Tensor, reach: int) -> Tensor:
    steps = torch.linspace(0.05, 0.25, 10).double().to(pred.device)
    sizes = [pred.shape[-2] - 2 * reach, pred.shape[-1] - 2 * reach]
    counts = torch.zeros(3, len(pred), len(steps) + 1, dtype=torch.float64, device=pred.device)
    image = torch.arange(len(pred), device=pred.device).view(-1, 1, 1, 1) * counts.shape[-1]

    def window(x: Tensor, down: int, across: int) -> Tensor:
        return x.narrow(-2, reach + down, sizes[0]).narrow(-1, reach + across, sizes[1])

    near = range(-reach, reach + 1)
    for down, across in ((i, j) for i in near for j in near if 0 < i * i + j * j <= reach**2):
        both = window(valid, 0, 0) & window(valid, down, across)
        ratios = (window(x, down, across) / window(x, 0, 0) for x in (pred, truth))
        p, g = (torch.bucketize(ratio, 1 + steps) for ratio in ratios)  # thresholds below it
        for kind, passed in enumerate((torch.minimum(p, g), p, g)):
            cells = torch.bincount((image + passed)[both], minlength=counts[kind].numel())
            counts[kind] += cells.reshape(counts[kind].shape)
    hits, found, real = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # those that pass each
    return (2 * hits / (found + real).clamp(min=1)) @ (steps / steps.sum())


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
