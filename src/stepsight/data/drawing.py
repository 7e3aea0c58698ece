"""A sample as pictures: its image, and each truth it has in the colours of all pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepsight.data.fields import Field, get, present
from stepsight.data.quantities.painting import paint_labels, paint_map, paint_mask
from stepsight.data.resize import resize_sample
from stepsight.types import Sample


def draw(sample: Sample, width: int | None = None) -> dict[str, Tensor]:
    """Pictures uint8 "3 h w" by name, at most `width` wide: of the image and whatever truth it has.

    Pixels whose truth is unknown are light grey.
    """
    height, full_width = sample.image.shape[-2:]
    if width is not None and full_width > width:
        sample = resize_sample(sample, (max(1, round(height * width / full_width)), width))
    pictures = {row.name: _picture(row, value, sample) for row, value in present(sample)}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _picture(row: Field, value: Any, sample: Sample) -> Tensor | None:
    """As the row says, or as its kind looks; None for what only accompanies others."""
    if row.draw is not None:
        return row.draw(value, sample)
    if row.kind == "picture":
        return value
    match row.kind if row.brought_by == () else "":
        case "map":
            return paint_map(value, get(sample, row.valid))
        case "mask":
            return paint_mask(value)
        case "ids":
            return paint_labels(value, sample)
    return None
