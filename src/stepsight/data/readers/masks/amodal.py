"""What the amodal sets with many objects per image share: each object is a sample.

Their annotation files outline every object as a whole, and the visible part where something hides
the rest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from stepsight.data.decoding.images import MAX_PIXELS, read_image
from stepsight.data.decoding.masks import read_mask
from stepsight.data.decoding.outlines.regions import is_empty, read_region
from stepsight.data.fields import with_values
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample


class Outline(NamedTuple):
    """An object: regions as `decoding.outlines` takes them; `visible` is None if all is visible."""

    key: str
    image: Path
    size: tuple[int, int]  # height, width the regions are drawn on
    amodal: Any
    visible: Any
    where: str  # annotation file and place in it, for errors


class AmodalSource(FileSource[Outline]):
    """Visible and whole masks of an object. Objects without a visible pixel are left out."""

    offers = frozenset({"amodal"})
    files: ClassVar[Mapping[str, str]]  # split: its annotations, below the root

    def find(self, split: str) -> list[Outline]:
        files = {name: self.root / file for name, file in self.files.items()}
        return self.pick_file(split, files, lambda n, path: visible(self.outlines(n, path)))

    def needed(self, entry: Outline) -> Iterable[Path]:
        return [entry.image]

    @abstractmethod
    def outlines(self, split: str, path: Path) -> Iterator[Outline]:
        """The objects of a split, of which `path` holds the annotations."""

    def read(self, entry: Outline) -> Sample:
        sample = Sample(
            image=read_image(entry.image, upright=False), key=entry.key, source=self.name
        )
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
            sample = with_values(sample, amodal_masks(modal, amodal, Path(entry.where)))
        return sample


def read_amodal(paths: Sequence[Path], image: Tensor) -> dict[str, Tensor]:
    """The fields of an object by the files of `image`, its visible and its whole mask.

    Raises `DataFormatError` if a file is damaged, of another size, or the object is hidden.
    """
    modal, amodal = read_mask(paths[1]), read_mask(paths[2])
    check_shapes(paths, image, modal, amodal)
    return amodal_masks(modal, amodal, paths[1])


def amodal_masks(modal: Tensor, amodal: Tensor, path: Path) -> dict[str, Tensor]:
    """The fields of an object's masks "1 h w". Raises `DataFormatError` if it is hidden."""
    check_any(modal, path, "no visible pixel")
    return {"modal": modal, "amodal": amodal | modal, "amodal_valid": torch.ones_like(modal)}


def visible(outlines: Iterable[Outline]) -> list[Outline]:
    """The objects of which something can be seen."""
    return [outline for outline in outlines if not _hidden(outline)]


def _hidden(outline: Outline) -> bool:
    height, width = outline.size
    shown = outline.amodal if outline.visible is None else outline.visible
    return height * width <= MAX_PIXELS and is_empty(shown, height, width)
