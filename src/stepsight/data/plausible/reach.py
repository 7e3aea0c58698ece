"""How far away things may be: what is beyond is sky or a code for unknown, or in another unit."""

from __future__ import annotations

import math
from dataclasses import replace

from stepsight.errors import DataFormatError
from stepsight.types import Sample

ONE_VALUE = 1e-3  # relative width of values that are one: a code, and no distances
MOST = 0.5  # of the depth


def within_reach(sample: Sample, farthest: float) -> Sample:
    """The sample, whose depth beyond `farthest` metres is known no longer; its values stay.

    Raises `DataFormatError` where most of the depth lies there and is not one value: then nothing
    but the unit can be wrong.
    """
    if sample.depth is None or not math.isfinite(farthest):
        return sample
    valid = sample.depth.isfinite() if sample.depth_valid is None else sample.depth_valid
    beyond = valid & (sample.depth > farthest)
    if not beyond.any():
        return sample
    low, high = sample.depth[beyond].aminmax()
    if beyond.sum() > MOST * valid.sum() and float(high - low) > ONE_VALUE * float(high):
        share = f"{float(beyond.sum() / valid.sum()):.0%}"
        raise DataFormatError(
            f"{sample.key}: {share} of its depth lies beyond {farthest:g} m, up to "
            f"{float(high):.4g}: in another unit? Name it, for your own files with depth_unit."
        )
    return replace(sample, depth_valid=valid & ~beyond)
