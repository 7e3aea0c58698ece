"""What the depth data sets share: pairs of image and depth, named by a list or by their folders.

A list has a line `rgb depth` for each frame, often with a third word (a focal length, a mask, a
remark) that nothing here needs, and often without a newline at the end. Valid is what the files
hold a measurement for; the range and the region that are scored belong to a protocol.
"""

from __future__ import annotations

import posixpath
import re
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from stepsight.data.decoding.images import read_depth_png, read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample


class Frame(NamedTuple):
    key: str
    image: Path
    depth: Path


class ListedDepth(FileSource[Frame]):
    """Images with depth in metres. Splits: one for each list at the root, or else those found."""

    offers = frozenset({"depth"})
    lists: ClassVar[re.Pattern[str]]  # names of list files; the group is their split, if not `all`

    def find(self, split: str) -> list[Frame]:
        lists = self._lists()
        if not lists:
            return self.pick(split, self.scan())
        return self.pick(split, {name: self._listed(name, path) for name, path in lists.items()})

    def read(self, entry: Frame) -> Sample:
        sample = Sample(image=read_image(entry.image), key=entry.key, source=self.name)
        if "depth" in self.quantities:
            depth, valid = self.decode(entry.depth, sample.image.shape[1], sample.image.shape[2])
            check_shapes([entry.image, entry.depth], sample.image, depth)
            check_any(valid, entry.depth, "no valid depth")
            sample.depth, sample.depth_valid = depth, valid
        return sample

    @abstractmethod
    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Depth float32 "1 h w" in metres and where it is valid, for an image of that size."""

    @abstractmethod
    def scan(self) -> dict[str, list[Frame]]:
        """The frames of each split by their folders, for want of a list."""

    def frame(self, split: str, image: str, depth: str) -> Frame:
        """The frame of a line of a split's list."""
        return Frame(without_suffix(image), self.root / image, self.root / depth)

    def _lists(self) -> dict[str, Path]:
        """The list of each split. Raises `UserError` if there are two."""
        found: dict[str, Path] = {}
        for path in sorted(self.root.glob("*.txt")):
            if match := self.lists.fullmatch(path.name):
                split = match[1] or "all"
                first = found.setdefault(split, path)
                if first != path:
                    reason = f"both {first.name} and {path.name} list split '{split}'"
                    raise UserError(f"{self.name}: {reason}; keep one of them in {self.root}.")
        return found

    def _listed(self, split: str, path: Path) -> list[Frame]:
        return [self.frame(split, image, depth) for image, depth in read_list(path)]


def read_list(path: Path) -> list[tuple[str, str]]:
    """The names of image and depth on each line. Raises `DataFormatError` naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"{path}: cannot be read as text ({error}).") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        names = line.split()
        if len(names) not in (2, 3):
            raise DataFormatError(f"{path}, line {number}: expected 'rgb depth', found {line!r}.")
        pairs.append((names[0], names[1]))
    return pairs


def read_integer_depth(path: Path, per_metre: int) -> tuple[Tensor, Tensor]:
    """Depth float32 "1 h w" in metres of a 16-bit PNG in which 0 means none, and where it is valid.

    Raises `DataFormatError` as `read_depth_png` does.
    """
    depth = read_depth_png(path).to(torch.float32) / per_metre
    return depth, depth > 0


def without_suffix(name: str) -> str:
    """`./a/b.png` -> `a/b`: the key of the sample in that file."""
    return posixpath.splitext(posixpath.normpath(name))[0]
