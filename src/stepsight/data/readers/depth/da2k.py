"""DA-2K (Yang et al. 2024): photographs of all kinds, and which of two points is closer.

`<root>/annotations.json`: `{"images/....jpg": [{"point1": [row, column], "point2": [row, column],
"closer_point": "point1"}, ...], ...}`, paths below the root, which name the kind of scene.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from stepsight.data.decoding.annotations import is_text, read_json
from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource
from stepsight.data.readers.listed import without_suffix
from stepsight.errors import DataFormatError
from stepsight.types import Sample

ANNOTATIONS = "annotations.json"
SCENES = (  # the kinds, by the folders or the beginning of file names
    "indoor",
    "outdoor",
    "non_real",
    "transparent_reflective",
    "adverse_style",
    "aerial",
    "underwater",
    "object",
)
OTHER = "other"
FARTHEST = 1 << 20  # no row or column is beyond it
POINTS = ("point1", "point2")


class Da2k(FileSource[str]):
    """One sample per image with all its pairs of points. Splits: the kinds of scenes, and all."""

    offers = frozenset({"order"})
    marker = ANNOTATIONS

    def find(self, split: str) -> list[str]:
        self._pairs = read_pairs(self.root / ANNOTATIONS)
        kinds: dict[str, list[str]] = {}
        for name in self._pairs:
            kinds.setdefault(kind_of(name), []).append(name)
        return self.pick(split, kinds)

    def read(self, entry: str) -> Sample:
        path = self.root / entry
        sample = Sample(image=read_image(path), key=without_suffix(entry), source=self.name)
        if "order" in self.quantities:
            order = self._pairs[entry]
            height, width = sample.image.shape[1:]
            if (order >= torch.tensor([height, width] * 2)).any():
                reason = f"a point lies outside its {height} x {width} pixels"
                raise DataFormatError(f"{path}: {reason} ({self.root / ANNOTATIONS}).")
            sample.order = order
        return sample


def kind_of(name: str) -> str:
    """The kind of scene that a path names, else `other`."""
    parts = PurePosixPath(name).parts
    return next((s for s in SCENES if any(part.startswith(s) for part in parts)), OTHER)


def read_pairs(path: Path) -> dict[str, Tensor]:
    """For each image its pairs int64 "n 4": row and column of the closer point, then the other's.

    Raises `DataFormatError` naming the image whose annotations are not of that form.
    """
    images = read_json(path)
    if not isinstance(images, dict) or not all(map(is_text, images)):
        raise DataFormatError(f"{path}: expected an object with one list per image.")
    return {name: _order(pairs, f"{path}, {name}") for name, pairs in images.items()}


def _order(pairs: Any, where: str) -> Tensor:
    if not isinstance(pairs, list) or not pairs or not all(map(_is_pair, pairs)):
        expected = '{"point1": [row, column], "point2": [row, column], "closer_point": "point1"}'
        raise DataFormatError(f"{where}: expected a list of {expected}.")
    rows = []
    for pair in pairs:
        closer = pair["closer_point"]
        farther = POINTS[1 - POINTS.index(closer)]
        rows.append([*pair[closer], *pair[farther]])
    return torch.tensor(rows, dtype=torch.int64)


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, dict) or pair.get("closer_point") not in POINTS:
        return False
    points = [pair.get(name) for name in POINTS]
    return all(isinstance(p, list) and len(p) == 2 and all(map(_is_place, p)) for p in points)


def _is_place(number: Any) -> bool:
    return type(number) is int and 0 <= number < FARTHEST
