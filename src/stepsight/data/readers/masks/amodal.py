"""What the amodal sets with many objects an image share: an object is one sample.

Their annotation files outline every object as a whole, and the visible part where something hides
the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from stepsight.data.decoding.images import MAX_PIXELS, read_image
from stepsight.data.decoding.regions import is_empty, read_region
from stepsight.data.files import FileSource, check_any
from stepsight.errors import DataFormatError
from stepsight.types import Sample


class Outline(NamedTuple):
    """One object: regions as `data.regions` takes them; no visible one if all of it is visible."""

    key: str
    image: Path
    size: tuple[int, int]  # height, width the regions are drawn on
    amodal: Any
    visible: Any
    where: str  # annotation file and place in it, for errors


class AmodalSource(FileSource[Outline]):
    """Visible and whole masks of one object. Objects without a visible pixel are left out."""

    offers = frozenset({"amodal"})

    def read(self, entry: Outline) -> Sample:
        sample = Sample(image=read_image(entry.image), key=entry.key, source=self.name)
        height, width = sample.image.shape[-2:]
        if (height, width) != entry.size:
            annotated = " x ".join(map(str, entry.size))
            reason = f"{height} x {width} pixels, where {entry.where} has {annotated}"
            raise DataFormatError(f"{entry.image}: {reason}.")
        if "amodal" in self.quantities:
            amodal = read_region(entry.amodal, height, width, entry.where)
            modal = amodal
            if entry.visible is not None:
                modal = read_region(entry.visible, height, width, entry.where)
            check_any(modal, Path(entry.where), "no visible pixel")
            sample.modal, sample.amodal = modal, amodal | modal
            sample.amodal_valid = torch.ones_like(modal)
        return sample

    def visible_ones(self, outlines: list[Outline]) -> list[Outline]:
        """The objects one can see something of. Raises `UserError` if pictures are missing."""
        pictures = {outline.image for outline in outlines}
        self.refuse_missing(sorted(path for path in pictures if not path.is_file()))
        return [outline for outline in outlines if not _hidden(outline)]


def _hidden(outline: Outline) -> bool:
    height, width = outline.size
    shown = outline.amodal if outline.visible is None else outline.visible
    return height * width <= MAX_PIXELS and is_empty(shown, height, width)
