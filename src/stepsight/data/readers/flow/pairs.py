"""What the readers of optical flow share: pairs of frames, and the flow from first to second."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from itertools import product
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
    directions: tuple[str, ...] = ()  # of the flow, in time, as the option calls them
    decode_flow: ClassVar[staticmethod[..., tuple[Tensor, Tensor]]]
    """Of a file: flow float32 "2 h w", and where it is valid, bool "1 h w"."""

    @abstractmethod
    def pairs(self, folder: str) -> list[Pair]:
        """All pairs of a folder of `splits` or `unscored`, in a fixed order."""

    @property
    def variants(self) -> list[tuple[str, str]]:
        """The cameras and `directions` that the settings choose, of sets that have both."""
        cameras = chosen(self.settings.camera, "left", "right")
        return list(product(cameras, chosen(self.settings.direction, *self.directions)))

    def find(self, split: str) -> list[Pair]:
        splits = self.splits
        if split in self.unscored:
            self.quantities, splits = frozenset(), {split: self.unscored[split]}
        return self.pick(split, {name: self.pairs(folder) for name, folder in splits.items()})

    def needed(self, entry: Pair) -> list[Path]:
        flow = entry.flow if "flow" in self.quantities else None
        return [path for path in (entry.image, entry.second, flow) if path]

    def read(self, entry: Pair) -> Sample:
        sample = Sample(image=read_image(entry.image), key=entry.key, source=self.name)
        if entry.second:
            sample.second = read_image(entry.second)
            check_shapes([entry.image, entry.second], sample.image, sample.second)
        if entry.flow and "flow" in self.quantities:
            sample.flow, sample.flow_valid = self.decode_flow(entry.flow)
            check_shapes([entry.image, entry.flow], sample.image, sample.flow)
            check_any(sample.flow_valid, entry.flow, "no valid flow")
        return sample

    def read_white(self, path: Path, sample: Sample, entry: Pair) -> Tensor:
        """Where an 8-bit picture of the frame's size is white (or grey above 127), bool "1 h w"."""
        white = read_image(path)[:1] > 127
        check_shapes([entry.image, path], sample.image, white)
        return white


def chosen(option: str, *values: str) -> tuple[str, ...]:
    """What an option chooses of its values: all of them where it is `both`."""
    return values if option == "both" else (option,)


def neighbours(frames: Iterable[Path], step: int = 1) -> list[tuple[Path, Path]]:
    """Each frame of a sequence with the frame whose number is `step` higher; a gap in the numbers
    shows as a missing file. Raises `DataFormatError` as `number_of` does."""
    frames = sorted(frames)
    return [(frame, _later(frame, step)) for frame in frames[:-1]]


def number_of(frame: Path) -> int:
    """What follows the last `_` of the stem, or the whole stem. Raises `DataFormatError` where that
    is no number."""
    number = frame.stem.rpartition("_")[2]
    if not number.isdecimal():
        raise DataFormatError(f"{frame}: its name does not end in the number of a frame.")
    return int(number)


def _later(frame: Path, step: int) -> Path:
    head, underscore, number = frame.stem.rpartition("_")
    following = f"{number_of(frame) + step:0{len(number)}d}"
    return frame.with_name(f"{head}{underscore}{following}{frame.suffix}")
