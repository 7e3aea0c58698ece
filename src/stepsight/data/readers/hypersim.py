"""Hypersim (Roberts et al. 2021) as preprocessed by Marigold.

`<root>/filename_list_<split>.txt` has a line `rgb depth` for each frame, relative to
`<root>/<split>/`. Depth is planar, in millimetres, 16-bit grey PNG, 0 where there is none; Marigold
counts 1e-5 m < depth < 65 m as valid.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.data.images import read_depth_png, read_image
from stepsight.errors import DataFormatError
from stepsight.types import Sample

PREFIX = "filename_list_"
NEAREST, FARTHEST = 1e-5, 65.0  # metres, both exclusive


class Frame(NamedTuple):
    key: str
    image: Path
    depth: Path


class Hypersim(FileSource[Frame]):
    """Indoor renderings with planar depth in metres. Splits: one for each list file, and `all`."""

    offers = frozenset({"depth"})
    marker = f"{PREFIX}*.txt"

    def find(self, split: str) -> list[Frame]:
        lists = {p.stem.removeprefix(PREFIX): p for p in sorted(self.root.glob(self.marker))}
        return self.pick(split, {name: read_list(path, name) for name, path in lists.items()})

    def read(self, entry: Frame) -> Sample:
        sample = Sample(image=read_image(entry.image), key=entry.key, source=self.name)
        if "depth" in self.quantities:
            depth = read_depth_png(entry.depth).to(torch.float32) / 1000
            check_shapes([entry.image, entry.depth], sample.image, depth)
            sample.depth, sample.depth_valid = depth, (depth > NEAREST) & (depth < FARTHEST)
            check_any(sample.depth_valid, entry.depth, "no valid depth")
        return sample


def read_list(path: Path, split: str) -> list[Frame]:
    """The frames a list file names. Raises `DataFormatError` naming the line."""
    folder = path.parent / split
    frames = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"{path}: cannot be read as text ({error}).") from error
    for number, line in enumerate(lines, 1):
        names = line.split()
        if len(names) != 2:
            raise DataFormatError(f"{path}, line {number}: expected 'rgb depth', found {line!r}.")
        key = f"{split}/{names[0].removesuffix('.png')}"
        frames.append(Frame(key, folder / names[0], folder / names[1]))
    return frames
