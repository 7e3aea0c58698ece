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
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

from stepsight.data.config import FileSettings
from stepsight.data.files import FileSource, root_of
from stepsight.data.sharded.index import INDEX, Index, read_index
from stepsight.data.sharded.members import ABOUT, decode
from stepsight.data.table import QUANTITIES
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

AMODAL = ("modal", "amodal", "amodal_valid")
FIELDS = {  # quantity: the fields it brings
    "depth": ("depth", "depth_valid"),
    "flow": ("second", "flow", "flow_valid", "occluded"),
    "labels": ("labels",),
    "instances": ("instances",),
    "amodal": AMODAL,
    "whole": ("whole", *AMODAL),
    "normals": ("normals", "normals_valid"),
    "order": ("order",),
    "class_id": (ABOUT,),
}


class Shards(FileSource[int]):
    """Samples of another source, equal to its own. Splits: those that were sharded, and `all`.

    It goes by the name of that source. An entry is the number of a sample in all tars under root.
    """

    offers = QUANTITIES
    farthest = math.inf  # what was sharded is taken as it is

    def __init__(
        self, settings: FileSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        whole = (root_of(settings.root) / INDEX).is_file()
        self.marker = INDEX if whole else f"*/{INDEX}"
        self._opened: tuple[int, _OpenTar] | None = None
        super().__init__(settings, split, quantities)
        asked = QUANTITIES if quantities is None else quantities  # a test split has frames alone
        self._wanted = {"image", *chain(*(FIELDS[name] for name in asked))}

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
        self._describe([one for _, one in ordered if split in (one.about["split"], "all")])
        self._check_tars(chosen)
        return chosen

    def read(self, entry: int) -> Sample:
        number = bisect_right(self._starts, entry) - 1
        path, tar = self._tars[number]
        row = entry - self._starts[number]
        height, width = map(int, tar.sizes[row])
        values: dict[str, Any] = {}
        for suffix, (offset, size, crc) in zip(tar.suffixes, tar.members[row].tolist()):
            name = suffix.partition(".")[0]
            if size and name in self._wanted:
                where = f"{path}, {tar.keys[row]}, {suffix}"
                data = self._tar(number).read(offset, size, crc, where)
                field = "class_id" if suffix == ABOUT else name
                values[field] = decode(suffix, data, (height, width), where)
        return Sample(key=tar.keys[row], source=self.name, **values)

    @property
    def groups(self) -> list[range]:
        """The indices in each tar, in order: read a group at a time, and the disk reads ahead."""
        first, last = self.entries[0], self.entries[-1]
        edges = [start - first for start in self._starts if first <= start <= last + 1]
        return [range(a, b) for a, b in pairwise(edges)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each sample, without reading it."""
        every = [(int(h), int(w)) for _, tar in self._tars for h, w in tar.sizes]
        return every[self.entries[0] : self.entries[-1] + 1]

    def _describe(self, indexes: list[Index]) -> None:
        """Take over what the indexes of the split say. Raises `UserError` where they disagree."""
        self._refuse_differing(indexes, ("classes", "categories", "quantities", "settings"))
        about = indexes[0].about
        self.options: dict[str, Any] = about["settings"]
        self.classes, self.categories = tuple(about["classes"]), tuple(about["categories"])
        self.published = about["published"]  # pyright: ignore[reportAttributeAccessIssue]
        self.quantities &= frozenset(about["quantities"])

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
        self.refuse_missing([path for path, _ in used if not path.is_file()])
        for path, tar in used:
            if (found := path.stat().st_size) != tar.bytes:
                raise DataFormatError(f"{path}: {found} bytes, where the index says {tar.bytes}.")

    def _tar(self, number: int) -> _OpenTar:
        """The open tar, and only that one: readers go through one after the other."""
        if (opened := self._opened) is None or opened[0] != number:
            opened = self._opened = (number, _OpenTar(self._tars[number][0]))
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # every process opens its own


class _OpenTar:
    """A file descriptor that is closed with the last reference, as threads may still read it."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            self._descriptor = -1
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from error

    def read(self, offset: int, size: int, crc: int, where: str) -> bytes:
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({error.strerror}).") from error
        if len(data) != size:
            raise DataFormatError(f"{where}: cut off, {len(data)} bytes of {size} are there.")
        if zlib.crc32(data) != crc:
            raise DataFormatError(f"{where}: damaged, the CRC is not the one in the index.")
        return data

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
