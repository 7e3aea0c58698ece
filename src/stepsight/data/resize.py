"""Samples at another size: each field as its row in the table of fields says."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepsight.data.fields import Field, get, present, with_values
from stepsight.data.quantities.grids import Size, average, move_points, nearest, smooth_picture
from stepsight.types import Sample


def resize_sample(sample: Sample, size: Size) -> Sample:
    """`sample` at height, width = `size`; the sample itself when it has that size already.

    A flow vector or normal is valid where the pixel under its centre is. It is averaged over its
    area (shrinking) or bilinear (enlarging) if all pixels in that are valid, and else that of the
    pixel under its centre.
    """
    height, width = sample.image.shape[-2:]
    if (height, width) == tuple(size):
        return sample
    changed = {
        row.name: _resized(row, value, get(sample, row.valid), (height, width), size)
        for row, value in present(sample)
    }
    return with_values(sample, changed)


def _resized(row: Field, value: Any, valid: Tensor | None, old: Size, new: Size) -> Any:
    match row.kind:
        case "number":
            return value
        case "points":
            return move_points(value, old, new)
        case "picture":
            return smooth_picture(value, new)
    value = average(value, valid, new) if row.average else nearest(value, new)
    return value if row.resized is None else row.resized(value, old, new)
