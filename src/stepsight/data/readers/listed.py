"""What the depth data sets share: pairs of image and depth, named by a list or by their folders.

A list has one line `rgb depth` per frame, often with a third word (a focal length, a mask, a
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

from stepsight.data.decoding.annotations import read_text
from stepsight.data.decoding.images import read_depth_png, read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

LARGEST = 65535  # of a 16-bit PNG; what is farther cannot be written


class DepthFrame(NamedTuple):
    key: str
    image: Path
    depth: Path


class ListedDepth(FileSource[DepthFrame]):
    """Images with depth in metres. Splits: those of the lists at the root, else of the folders."""

    offers = frozenset({"depth"})
    lists: ClassVar[re.Pattern[str]]  # names of list files; the group is their split, if not `all`
    per_metre: ClassVar[int] = 1000  # stored units

    def find(self, split: str) -> list[DepthFrame]:
        lists = self._lists()
        if not lists:
            return self.pick(split, self.scan())
        return self.pick(split, {name: self._listed(name, path) for name, path in lists.items()})

    def read(self, entry: DepthFrame) -> Sample:
        sample = Sample(
            image=read_image(entry.image, upright=False), key=entry.key, source=self.name
        )
        if "depth" in self.quantities:
            depth, valid = self.decode(entry.depth, sample.image.shape[1], sample.image.shape[2])
            check_shapes([entry.image, entry.depth], sample.image, depth)
            check_any(valid, entry.depth, "no valid depth")
            sample.depth, sample.depth_valid = depth, valid
        return sample

    def decode(self, path: Path, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Depth float32 "1 h w" in metres and where it is valid, for an image of that size."""
        return read_integer_depth(path, self.per_metre)

    @abstractmethod
    def scan(self) -> dict[str, list[DepthFrame]]:
        """The frames of each split by their folders, for want of a list."""

    def frame(self, split: str, image: str, depth: str) -> DepthFrame:
        """The frame of a line of a split's list."""
        return DepthFrame(without_suffix(image), self.root / image, self.root / depth)

    def _lists(self) -> dict[str, Path]:
        """The list of each split. Raises `UserError` if there are two."""
        lists: dict[str, Path] = {}
        for path in sorted(self.root.glob("*.txt")):
            if match := self.lists.fullmatch(path.name):
                split = match[1] or "all"
                first = lists.setdefault(split, path)
                if first != path:
                    reason = f"both {first.name} and {path.name} list split '{split}'"
                    raise UserError(f"{self.name}: {reason}; keep one of them in {self.root}.")
        return lists

    def _listed(self, split: str, path: Path) -> list[DepthFrame]:
        return [self.frame(split, image, depth) for image, depth in read_list(path)]


def read_list(path: Path) -> list[tuple[str, str]]:
    """The names of image and depth on each line. Raises `DataFormatError` naming the line."""
    words = (line.split() for line in read_lines(path))
    return [(image, depth) for image, depth, *_ in words]


def read_lines(path: Path) -> list[str]:
    """The lines of a list, two or three words each. Raises `DataFormatError` naming the line."""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        if len(line.split()) not in (2, 3):
            raise DataFormatError(f"{path}, line {number}: expected 'rgb depth', found {line!r}.")
    return lines


def read_integer_depth(path: Path, per_metre: int) -> tuple[Tensor, Tensor]:
    """Depth float32 "1 h w" in metres of a 16-bit PNG in which 0 means none, and where it is valid.

    Raises `DataFormatError` as `read_depth_png` does.
    """
    depth = read_depth_png(path).to(torch.float32).div_(per_metre)
    return depth, depth > 0


def to_millimetres(depth: Tensor, valid: Tensor) -> Tensor:
    """The inverse: metres "1 h w" to uint16 millimetres, fractions cut off as in Marigold's files.

    Pixels that are not valid, and those farther than `LARGEST`, become 0: nothing wraps around.
    """
    whole = (depth * 1000).floor()
    fits = valid & (whole > 0) & (whole <= LARGEST)
    return torch.where(fits, whole, 0).to(torch.int32).to(torch.uint16)


def without_suffix(name: str) -> str:
    """`./a/b.png` -> `a/b`: the key of the sample in that file."""
    return posixpath.splitext(posixpath.normpath(name))[0]
