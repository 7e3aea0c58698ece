"""Rules about what the numbers of a depth map are: distances in metres, or something else."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.data.decoding.disk import part_of
from stepsight.data.decoding.truth import DEPTH
from stepsight.data.plausible.rules import Finding, PlausibleRule
from stepsight.errors import UserError
from stepsight.types import Sample

LEVELS = 16  # different values that whole numbers need to be suspicious
LOOKED = 1 << 15  # pixels at which single values are looked at
CODES = (65535, 65534, 32767)  # the largest whole numbers of 16 bits
SCALES = (1000.0, 256.0, 100.0, 5000.0, 10000.0, 1.0)  # stored numbers a metre
ROUNDING = 0.02  # of a stored number, by which float32 may miss it
SATURATED = 1e-3  # share of the depth that a code covers
CAPPED = 0.02  # share that has the very largest value
NEAREST = 0.1  # metres: what is nearer altogether is in another unit
FEW = 10  # pixels: a fit to fewer says nothing
WIDE = 1024  # pixels of a side, of which more are passed over
SPANS = 24  # of the longer side that three points in line are apart
TRIPLES = 100  # that must be able to tell
STRAIGHT = 0.08  # relative bend up to which three points may lie on a plane
TURNED = 0.4  # share of the triples that a disparity does not exceed, and 1 - TURNED a depth


def known(sample: Sample) -> Tensor:
    """The valid depths "n" of every so many pixels."""
    assert sample.depth is not None
    step = max(1, math.isqrt(sample.depth.numel() // LOOKED))
    depth = sample.depth[:, ::step, ::step]
    valid = depth.isfinite() & (depth > 0)
    if sample.depth_valid is not None:
        valid = valid & sample.depth_valid[:, ::step, ::step]
    return depth[valid].double()


def stored(sample: Sample, source: Any) -> tuple[Tensor, float] | None:
    """The whole numbers that a user's files hold and how many there are a metre, where their unit
    was taken as it usually is; None where that is named, or files hold floats, which are metres."""
    settings = getattr(source, "settings", None)
    scale = getattr(settings, "depth_scale", None)
    if scale is None or getattr(settings, "depth_unit", "") or not _of_numbers(source):
        return None
    numbers = known(sample) * scale
    if len(numbers) < FEW or ((numbers - numbers.round()).abs() > ROUNDING).any():
        return None
    return numbers.round(), scale


def _of_numbers(source: Any) -> bool:
    """Whether the first depth file of a source of files holds whole numbers."""
    entries = getattr(source, "entries", ())
    files = (entry.paths.get("depth") for entry in entries if hasattr(entry, "paths"))
    path = next(filter(None, files), None)
    return path is not None and _holds_numbers(path)


@lru_cache(maxsize=64)
def _holds_numbers(path: Path) -> bool:
    read = DEPTH.get(part_of(path)[0].suffix.lower())
    try:
        return read is not None and not read(path).dtype.is_floating_point
    except UserError:  # which is met when its sample is read
        return False


def straightness(sample: Sample) -> tuple[float, int]:
    """Of triples of pixels in line that lie about on a plane, the share for which 1/v bends less
    than v, and their number. Over a plane 1/depth is affine in the pixels, and so is a disparity:
    with depth the share is near 1, with disparity near 0, whatever the scale."""
    assert sample.depth is not None
    every = max(1, max(sample.depth.shape) // WIDE)
    depth = sample.depth[0, ::every, ::every].double()
    valid = depth.isfinite() & (depth > 0)
    if sample.depth_valid is not None:
        valid = valid & sample.depth_valid[0, ::every, ::every]
    span = max(2, max(depth.shape) // SPANS)
    step = max(1, span // 4)
    found = []
    for axis in (0, 1):
        n = depth.shape[axis] - 2 * span
        if n < 1:
            continue
        three = [valid.narrow(axis, start, n) for start in (0, span, 2 * span)]
        where = (three[0] & three[1] & three[2]).nonzero()[::step].unbind(1)
        a, m, b = (depth.narrow(axis, start, n)[where] for start in (0, span, 2 * span))
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        sloped = (m >= low) & (m <= high) & (high > 1.15 * low) & (high < 2.5 * low)
        a, m, b = a[sloped], m[sloped], b[sloped]
        bends = [
            ((x + z - 2 * y) / (x - z)).abs() for x, y, z in ((a, m, b), (1 / a, 1 / m, 1 / b))
        ]
        plane = torch.minimum(*bends) < STRAIGHT
        found.append((bends[1] < bends[0])[plane])
    votes = torch.cat(found) if found else torch.zeros(0)
    return float(votes.double().mean()) if len(votes) else math.nan, len(votes)


def _inverted(sample: Sample, source: Any) -> Finding:
    share, count = straightness(sample)
    if count < TRIPLES or TURNED < share < 1 - TURNED:
        return None
    return {"share": f"{1 - share:.0%}"} if share <= TURNED else False


def _whole(sample: Sample, source: Any) -> Finding:
    depth = known(sample)
    if not len(depth) or (depth != depth.round()).any():
        return False
    levels = len(depth.unique())
    return {"levels": levels, "high": f"{float(depth.max()):g}"} if levels >= LEVELS else False


def _fives(sample: Sample, source: Any) -> Finding:
    found = stored(sample, source)
    if found is None or found[1] % 5:
        return None
    return len(found[0].unique()) >= LEVELS and not bool((found[0] % 5).any())


def _assumed(sample: Sample, source: Any) -> Finding:
    found = stored(sample, source)
    return {"scale": f"{found[1]:g}"} if found else None


def _saturated(sample: Sample, source: Any) -> Finding:
    depth = known(sample)
    if not len(depth):
        return None
    high = float(depth.max())
    share, code = float((depth == high).double().mean()), _code(high)
    if code is None or share < SATURATED:
        return False
    return {"share": f"{share:.2%}", "high": f"{high:g}", "code": code}


def _code(high: float) -> int | None:
    """The code that a depth was stored as, if it is one at any usual scale."""
    codes = (code for scale in SCALES for code in CODES if abs(high * scale - code) < 0.5)
    return next(codes, None)


def _capped(sample: Sample, source: Any) -> Finding:
    depth = known(sample)
    if not len(depth) or float((depth == depth.max()).double().mean()) < CAPPED:
        return False
    high = float(depth.max())
    return {"high": f"{high:g}"} if _code(high) is None else False


def _near(sample: Sample, source: Any) -> Finding:
    depth = known(sample)
    if not len(depth):
        return None
    high = float(depth.max())
    return {"high": f"{high:.3g}"} if high < NEAREST else False


def _normalised(sample: Sample, source: Any) -> Finding:
    depth = known(sample)
    return len(depth.unique()) >= LEVELS and abs(float(depth.max()) - 1) < 1e-6


def _few(sample: Sample, source: Any) -> Finding:
    valid = sample.depth_valid
    if valid is None or not (count := int(valid.sum())) or count >= FEW:
        return False
    return {"count": count}


RULES = (
    PlausibleRule(
        "inverted",
        "depth",
        "depth looks like disparity, 1/depth: {share} of its slopes are straight only that way",
        "Say depth_unit disparity, or K/disparity for K = focal length x baseline; if that is said "
        "already, the files hold distances.",
        _inverted,
        share=0.5,
        answers=True,
    ),
    PlausibleRule(
        "whole numbers",
        "depth",
        "depth holds nothing but whole metres, {levels} different ones up to {high}",
        "Is it in millimetres, or a stored code? Name its unit.",
        _whole,
        share=0.5,
        answers=True,
    ),
    PlausibleRule(
        "multiples of five",
        "depth",
        "depth was stored in multiples of 5, as files of 1/5000 m have it",
        "Name its unit: depth_unit 1/5000, or mm.",
        _fives,
        share=0.5,
    ),
    PlausibleRule(
        "unit assumed",
        "depth",
        "depth is stored in whole numbers of no named unit: {scale} a metre are assumed",
        "Name it to be sure: depth_unit mm, cm, 1/256, 1/5000, disparity.",
        _assumed,
        grave=False,
    ),
    PlausibleRule(
        "saturated",
        "depth",
        "{share} of the depth is exactly {high} m, stored as {code}",
        "Is that the code for none? Then name it: invalid.",
        _saturated,
    ),
    PlausibleRule(
        "capped",
        "depth",
        "depth ends at exactly {high} m",
        "Is that a limit, or the code for none?",
        _capped,
        grave=False,
        share=0.6,
        least=3,
        alike=True,
    ),
    PlausibleRule(
        "too near",
        "depth",
        "depth of at most {high} m",
        "Is it in another unit, or normalised?",
        _near,
        share=0.5,
    ),
    PlausibleRule(
        "normalised",
        "depth",
        "depth ends at exactly 1 m, as if it were normalised",
        "If so, it has no unit: say depth_unit disparity if it is one, or train on relative depth.",
        _normalised,
        share=0.8,
        least=2,
    ),
    PlausibleRule(
        "few",
        "depth",
        "only {count} pixels have a depth, too few to fit a scale to",
        "Such pictures are left out of scores that fit one.",
        _few,
        grave=False,
    ),
)
