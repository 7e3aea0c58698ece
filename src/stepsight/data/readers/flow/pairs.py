"""What the readers of optical flow share: pairs of frames, and the flow from first to second."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor

from stepsight.data.decoding.images import read_image
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample


class Pair(NamedTuple):
    key: str
    image: Path
    second: Path | None = None  # None where nothing but the first frame is asked for
    flow: Path | None = None  # None where the data set keeps it to itself


class PairSource(FileSource[Pair]):
    """Pairs with flow in pixels of the first frame. `all` is the union of the `splits`."""

    offers = frozenset({"flow"})
    splits: ClassVar[Mapping[str, str]]  # split: the folder under the root it lies in
    unscored: ClassVar[Mapping[str, str]] = {}  # the same, of splits without published truth

    @abstractmethod
    def pairs(self, folder: str) -> list[Pair]:
        """All pairs of a folder of `splits` or `unscored`, in a fixed order."""

    @abstractmethod
    def read_flow(self, path: Path) -> tuple[Tensor, Tensor]:
        """Flow float32 "2 h w" and where it is valid, bool "1 h w". Raises `DataFormatError`."""

    def find(self, split: str) -> list[Pair]:
        splits = self.splits
        if split in self.unscored:
            self.quantities, splits = frozenset(), {split: self.unscored[split]}
        pairs = self.pick(split, {name: self.pairs(folder) for name, folder in splits.items()})
        self.refuse_missing(absent(path for pair in pairs for path in self.needed(pair)))
        return pairs

    def needed(self, entry: Pair) -> list[Path]:
        """The files that must be there for this entry."""
        flow = entry.flow if "flow" in self.quantities else None
        return [path for path in (entry.image, entry.second, flow) if path]

    def read(self, entry: Pair) -> Sample:
        sample = Sample(image=read_image(entry.image), key=entry.key, source=self.name)
        if entry.second:
            sample.second = read_image(entry.second)
            check_shapes([entry.image, entry.second], sample.image, sample.second)
        if entry.flow and "flow" in self.quantities:
            sample.flow, sample.flow_valid = self.read_flow(entry.flow)
            check_shapes([entry.image, entry.flow], sample.image, sample.flow)
            check_any(sample.flow_valid, entry.flow, "no valid flow")
        return sample

    def read_white(self, path: Path, sample: Sample, entry: Pair) -> Tensor:
        """Where an 8-bit picture of the frame's size is white (or grey above 127), bool "1 h w"."""
        white = read_image(path)[:1] > 127
        check_shapes([entry.image, path], sample.image, white)
        return white


def neighbours(frames: Iterable[Path], step: int = 1) -> list[tuple[Path, Path]]:
    """Each frame of one sequence with the one whose number is `step` higher; a gap in the numbers
    shows as a file not there. Raises `DataFormatError` as `number_of` does."""
    frames = sorted(frames)
    return [(frame, _later(frame, step)) for frame in frames[:-1]]


def number_of(frame: Path) -> int:
    """What follows the last `_` of the stem, or the whole stem. Raises `DataFormatError` where that
    is no number."""
    number = frame.stem.rpartition("_")[2]
    if not number.isdecimal():
        raise DataFormatError(f"{frame}: its name does not end in the number of a frame.")
    return int(number)


def absent(paths: Iterable[Path]) -> list[Path]:
    """Those of `paths` that do not exist, at the cost of one listing a folder."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        if path.parent not in listed:
            listed[path.parent] = {entry.name for entry in path.parent.glob("*")}
        if path.name not in listed[path.parent]:
            missing.append(path)
    return missing


def _later(frame: Path, step: int) -> Path:
    head, underscore, number = frame.stem.rpartition("_")
    following = f"{number_of(frame) + step:0{len(number)}d}"
    return frame.with_name(f"{head}{underscore}{following}{frame.suffix}")
