"""Data sets in tar shards, as `stepsight data shard` writes them: a few large files, read in order.

`<root>/shard-000000.tar, ... , index.json`, or one such folder for each split below the root. A
sample is read straight from its offset; nothing is unpacked to disk, and every member must have the
CRC-32 that the index gives, so that what is read is what was written.
"""

from __future__ import annotations

import math
import os
import zlib
from bisect import bisect_right
from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from stepsight.data.decoding.disk import reading as on_disk
from stepsight.data.fields import QUANTITIES, quantities, row_of, with_values
from stepsight.data.files import FileSource
from stepsight.data.sharded.index import INDEX, Index, read_index
from stepsight.data.sharded.members import ABOUT, decode
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample


class Shards(FileSource[int]):
    """Samples of another source, equal to the originals. Splits: those sharded, and `all`.

    It goes by the name of that source. An entry is the number of a sample in all tars under root.
    """

    offers = QUANTITIES
    farthest = math.inf  # what was sharded is taken as it is
    truths: tuple[frozenset[str], ...] = ()  # of each sample, where they differ

    _opened: tuple[int, _OpenTar] | None = None

    def survey(self, root: Path, split: str) -> None:
        self.marker = INDEX if (root / INDEX).is_file() else f"*/{INDEX}"

    def offered(self) -> frozenset[str]:
        return quantities()

    def find(self, split: str) -> list[int]:
        indexes = {path.parent: read_index(path) for path in sorted(self.root.glob(self.marker))}
        ordered = sorted(indexes.items(), key=lambda item: (item[1].about["split"], item[0]))
        self._refuse_differing([index for _, index in ordered], ("source",))
        self.name = ordered[0][1].about["source"]
        self._tars = [(folder / tar.name, tar) for folder, index in ordered for tar in index.tars]
        self._starts = [0, *accumulate(len(tar) for _, tar in self._tars)]
        numbers = iter(range(self._starts[-1]))
        parts: dict[str, list[int]] = {}
        for _, index in ordered:
            part = [next(numbers) for _ in range(len(index))]
            parts.setdefault(index.about["split"], []).extend(part)
        chosen = self.pick(split, parts)
        self._describe([index for _, index in ordered if split in (index.about["split"], "all")])
        self._tell_apart(chosen)
        self._check_tars(chosen)
        return chosen

    def read(self, entry: int) -> Sample:
        number = bisect_right(self._starts, entry) - 1
        path, tar = self._tars[number]
        row = entry - self._starts[number]
        height, width = map(int, tar.sizes[row])
        values: dict[str, Any] = {}
        for suffix, (offset, size, crc) in zip(tar.suffixes, tar.members[row].tolist()):
            name = "class_id" if suffix == ABOUT else suffix.partition(".")[0]
            if size and self._is_wanted(name):
                where = f"{path}, {tar.keys[row]}, {suffix}"
                data = self._tar(number).read(offset, size, crc, where)
                values[name] = decode(suffix, data, (height, width), where)
        if "image" not in values:
            raise DataFormatError(f"{path}, {tar.keys[row]}: has no picture.")
        sample = Sample(image=values.pop("image"), key=tar.keys[row], source=self.name)
        return with_values(sample, values)

    def _is_wanted(self, name: str) -> bool:
        """Whether a field was asked for, also one that only some of the splits have."""
        wanted = self.asked is None or not self.asked.isdisjoint(row_of(name).quantities)
        return wanted or name == "image"

    @property
    def groups(self) -> list[range]:
        """The indices in each tar, in order: read a group at a time, and the disk reads ahead."""
        first, last = self.entries[0], self.entries[-1]
        edges = [start - first for start in self._starts if first <= start <= last + 1]
        return [range(a, b) for a, b in pairwise(edges)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each sample, without reading it."""
        sizes = [(int(h), int(w)) for _, tar in self._tars for h, w in tar.sizes]
        return sizes[self.entries[0] : self.entries[-1] + 1]

    def _describe(self, indexes: list[Index]) -> None:
        """Take over what the indexes of the split say. Raises `UserError` where they disagree."""
        self._refuse_differing(indexes, ("classes", "categories", "quantities", "settings"))
        about = indexes[0].about
        self.options: dict[str, Any] = about["settings"]
        self.classes, self.categories = tuple(about["classes"]), tuple(about["categories"])
        self.published = about["published"]
        self.quantities &= frozenset(about["quantities"])

    def _tell_apart(self, chosen: list[int]) -> None:
        """Say which truths each sample has, where they differ."""
        held = [one for _, tar in self._tars for one in tar.having(self.quantities)]
        held = held[chosen[0] : chosen[-1] + 1]
        if len(set(held)) > 1:
            self.truths = tuple(held)
            self.quantities = frozenset().union(*held)
        counts = Counter(quantity for one in self.truths for quantity in one)
        self.notes = tuple(
            f"{quantity}: {count} of {len(held)} samples"
            for quantity, count in sorted(counts.items())
            if count < len(held)
        )

    def _refuse_differing(self, indexes: list[Index], names: tuple[str, ...]) -> None:
        """Raise `UserError` unless the indexes say the same under each of `names`."""
        about = indexes[0].about
        for other in indexes[1:]:
            for name in names:
                if other.about[name] != about[name]:
                    raise UserError(
                        f"shards: the folders under {self.root} differ in {name}: {about[name]}, "
                        f"{other.about[name]}. Name one of them as the root."
                    )

    def _check_tars(self, chosen: list[int]) -> None:
        """Raise unless the chosen tars are there and as long as the index says."""
        used = [
            pair
            for pair, start in zip(self._tars, self._starts)
            if chosen[0] <= start <= chosen[-1]
        ]
        self.refuse_missing(path for path, _ in used)
        for path, tar in used:
            if (size := path.stat().st_size) != tar.bytes:
                raise DataFormatError(f"{path}: {size} bytes, where the index says {tar.bytes}.")

    def _tar(self, number: int) -> _OpenTar:
        """The open tar, and no other: readers go through them in turn."""
        if (opened := self._opened) is None or opened[0] != number:
            opened = self._opened = (number, _OpenTar(self._tars[number][0]))
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # every process opens the file itself


class _OpenTar:
    """A file descriptor that is closed with the last reference, as threads may still read it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        with on_disk(path):
            self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int, crc: int, where: str) -> bytes:
        with on_disk(where):
            data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise DataFormatError(f"{where}: cut off, {len(data)} bytes of {size} are there.")
        if zlib.crc32(data) != crc:
            raise DataFormatError(f"{where}: damaged, the CRC is not that of the index.")
        return data

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
