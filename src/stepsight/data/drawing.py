"""A sample as pictures: its image, and each truth it has in the colours of all pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from stepsight.data.fields import Field, get, present
from stepsight.data.quantities.painting import key_map, paint_labels, paint_map, paint_mask
from stepsight.data.resize import resize_sample
from stepsight.legends import Legend
from stepsight.types import Sample


class PaintedField(NamedTuple):
    """A field of a sample in colours."""

    picture: Tensor  # uint8 "3 h w"
    key: Legend | None  # what they mean, where that is to be said


def draw(sample: Sample, width: int | None = None) -> dict[str, PaintedField]:
    """Pictures by name, at most `width` wide: of the image and whatever truth it has.

    Pixels whose truth is unknown are light grey.
    """
    height, full_width = sample.image.shape[-2:]
    if width is not None and full_width > width:
        sample = resize_sample(sample, (max(1, round(height * width / full_width)), width))
    drawings = {row.name: _drawing(row, value, sample) for row, value in present(sample)}
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}


def _drawing(row: Field, value: Any, sample: Sample) -> PaintedField | None:
    """As the row says, or as its kind looks; None for what only accompanies others."""
    key = row.key and row.key(value, sample)
    if row.draw is not None:
        return PaintedField(row.draw(value, sample), key)
    if row.kind == "picture":
        return PaintedField(value, key)
    match row.kind if row.brought_by == () else "":
        case "map":
            valid = get(sample, row.valid)
            return PaintedField(paint_map(value, valid), key or key_map(value, valid, row.unit))
        case "mask":
            return PaintedField(paint_mask(value), key)
        case "ids":
            return PaintedField(paint_labels(value, sample), key)
    return None
