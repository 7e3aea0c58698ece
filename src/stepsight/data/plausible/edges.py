"""Does truth lie on its picture as it was taken? Where truth has edges the picture has some, too.

The edges of both are compared as they lie, under the other seven flips of a square, and moved by a
few pixels. What counts is by how much another placement fits better than the given one, measured
by correlations that a picture alone decides; where nothing fits, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.data.plausible.rules import Finding, PlausibleRule
from stepsight.types import IGNORE, Sample

SMALLEST = 32  # pixels: on shorter sides edges decide nothing
KNOWN = 0.3  # share of the picture that truth has to cover
CELLS = 64  # along a side of the square on which flips are compared
LONGEST = 512  # pixels of a side, of which more are passed over
MIDDLE = 320  # pixels of a side of the part in which shifts are looked for
FITS = 0.05  # correlation from which edges decide on flips,
SHARP = 0.1  # and on shifts
MARGIN = 0.03  # of correlation between the best flip and all others,
TIMES = 1.4  # which are smaller by this factor
OUTLINE = 2.0  # times the above for the outline of one object, which many edges resemble
REACH = 3  # pixels that truth is moved by, at most
BETTER = 1.15  # times the correlation as given
CAPS = {"depth": 0.2, "flow": 2.0, "labels": 0.5, "amodal": 0.5, "normals": 0.5}  # of one edge
FLIPS = {  # (transposed, upside down, mirrored), of what is stored: how it lies
    (0, 0, 0): "as it is",
    (0, 0, 1): "mirrored left to right",
    (0, 1, 0): "upside down",
    (0, 1, 1): "turned by 180 degrees",
    (1, 0, 0): "with rows and columns exchanged",
    (1, 0, 1): "turned by 90 degrees",
    (1, 1, 0): "turned by 90 degrees",
    (1, 1, 1): "with rows and columns exchanged and turned by 180 degrees",
}


def truth_map(sample: Sample, name: str) -> tuple[Tensor, Tensor] | None:
    """A quantity as a map "c h w" whose edges mean something, and where it is known, bool "h w".
    None where it covers too little, or the picture is too small to tell."""
    values = getattr(sample, name)
    known = torch.ones(values.shape[-2:], dtype=torch.bool)
    if name == "labels":
        known, values = values != IGNORE, values[None].float()
    elif name == "amodal":
        values = (values if sample.modal is None else sample.modal).float()
    elif (valid := getattr(sample, f"{name}_valid")) is not None:
        known = valid[0]
    if name == "depth":
        known = known & (values[0] > 0)
        values = values.clamp(min=1e-6).log()
    if min(known.shape) < SMALLEST or float(known.float().mean()) < KNOWN:
        return None
    return values, known


def steps(x: Tensor, known: Tensor) -> Tensor:
    """The largest difference "h w" of a pixel of "c h w" to a neighbour where both are known."""
    out = torch.zeros(known.shape)
    for axis in (-1, -2):
        n = x.shape[axis] - 1
        both = known.narrow(axis, 0, n) & known.narrow(axis, 1, n)
        size = (x.narrow(axis, 0, n) - x.narrow(axis, 1, n)).abs().amax(0)
        size = torch.where(both, size, 0.0)
        for side in (0, 1):
            part = out.narrow(axis, side, n)
            part.copy_(torch.maximum(part, size))
    return out


def flip_correlations(sample: Sample, name: str) -> dict[tuple[int, int, int], float] | None:
    """How well the picture's edges fit those of a truth that is flipped back, by flip."""
    found = truth_map(sample, name)
    if found is None:
        return None
    step = max(1, round(max(found[1].shape) / LONGEST))
    values, known = (x[..., ::step, ::step] for x in found)
    picture = F.avg_pool2d(
        sample.image[:, ::step, ::step].float()[None], 3, 1, 1, count_include_pad=False
    )[0]
    seen = _celled(steps(picture, torch.ones_like(known)))
    truth = _celled(steps(values, known).clamp(max=CAPS[name]))
    scale = float(seen.norm() * truth.norm())
    if scale <= 0:
        return None
    return {flip: _peak(seen, flipped) / scale for flip, flipped in _flips(truth)}


def shift_correlations(sample: Sample, name: str) -> Tensor | None:
    """How well the picture's edges fit those of a truth moved by (row - REACH, column - REACH)."""
    found = truth_map(sample, name)
    if found is None:
        return None
    values, known = (_middle(x) for x in found)
    picture = _middle(sample.image).float()
    seen = _local(steps(picture, torch.ones_like(known)).clamp(max=60).sqrt(), 9)
    truth = _local(steps(values, known).clamp(max=CAPS[name]).sqrt(), 9)
    height, width = known.shape
    inner = truth[REACH : height - REACH, REACH : width - REACH]
    reach = range(2 * REACH + 1)
    moved = [seen[i : i + inner.shape[0], j : j + inner.shape[1]] for i in reach for j in reach]
    scores = [float((inner * one).sum() / (inner.norm() * one.norm() + 1e-9)) for one in moved]
    return torch.tensor(scores).view(len(reach), len(reach))


def _celled(edges: Tensor) -> Tensor:
    return _local(F.adaptive_avg_pool2d(edges[None], CELLS)[0].sqrt(), 15)


def _local(x: Tensor, window: int) -> Tensor:
    """What "h w" has more than its surroundings."""
    return x - F.avg_pool2d(x[None], window, 1, window // 2, count_include_pad=False)[0]


def _flips(x: Tensor) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
    for flip in FLIPS:
        y = x.T if flip[0] else x
        y = y.flip(0) if flip[1] else y
        yield flip, y.flip(1) if flip[2] else y


def _peak(a: Tensor, b: Tensor) -> float:
    """The largest sum of products of two squares that lie within a cell of each other."""
    padded = F.pad(a, (1, 1, 1, 1))
    n = len(a)
    return max(float((padded[i : i + n, j : j + n] * b).sum()) for i in range(3) for j in range(3))


def _middle(x: Tensor) -> Tensor:
    top, left = (max(0, (n - MIDDLE) // 2) for n in x.shape[-2:])
    return x[..., top : top + MIDDLE, left : left + MIDDLE]


def _turned(name: str) -> PlausibleRule:
    strict = OUTLINE if name == "amodal" else 1.0

    def look(sample: Sample, source: Any) -> Finding:
        fits = flip_correlations(sample, name)
        if fits is None:
            return None
        best, second, *_ = sorted(fits, key=lambda flip: -fits[flip])
        least = max(strict * FITS, fits[second] + strict * MARGIN, TIMES * fits[second])
        if fits[best] < least:
            return None
        return {"how": FLIPS[best]} if any(best) else False

    says = f"{name} fits its picture much better {{how}} than as it is stored"
    do = "Is one of the two mirrored or rotated, as by a camera's orientation tag?"
    return PlausibleRule("turned", name, says, do, look, share=0.75, least=2)


def _shifted(name: str) -> PlausibleRule:
    def look(sample: Sample, source: Any) -> Finding:
        fits = shift_correlations(sample, name)
        if fits is None or float(fits.max()) < SHARP:
            return None
        row, column = divmod(int(fits.argmax()), fits.shape[1])
        if (row, column) == (REACH, REACH):
            return False
        if float(fits.max()) < BETTER * float(fits[REACH, REACH]):
            return None
        return {"rows": row - REACH, "columns": column - REACH}

    says = f"{name} fits its picture better when moved by {{rows}} rows down and {{columns}} right"
    do = "Was one of the two cropped or resized from another corner?"
    return PlausibleRule(
        "shifted", name, says, do, look, grave=False, share=0.6, least=2, alike=True
    )


RULES = tuple(rule for name in CAPS for rule in (_turned(name), _shifted(name)))
