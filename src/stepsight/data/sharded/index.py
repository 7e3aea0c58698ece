"""The index of a sharded data set: what it is of, and where each member of each sample lies.

`index.json` beside the tars. It is written last, so a folder that has it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.decoding.annotations import read_json
from stepsight.data.decoding.images import MAX_PIXELS
from stepsight.data.fields import row_of
from stepsight.data.prepare.manifest import write_whole
from stepsight.data.sharded.members import is_member
from stepsight.errors import DataFormatError

INDEX = "index.json"
FORMAT = 1
ABSENT = (0, 0, 0)  # of a member that a sample lacks


@dataclass(frozen=True)
class Tar:
    """A tar file and its samples."""

    name: str
    bytes: int
    sha256: str
    suffixes: tuple[str, ...]  # of the members, such as `depth.npy`
    keys: tuple[str, ...]
    sizes: np.ndarray  # int64 "n 2": height, width of each sample
    members: np.ndarray  # int64 "n s 3": offset of the data, its bytes, its CRC-32; or ABSENT

    def __len__(self) -> int:
        return len(self.keys)

    def having(self, quantities: Iterable[str]) -> list[frozenset[str]]:
        """Which of the quantities each sample has: those whose own field has a member, and numbers,
        which lie in the JSON."""
        columns = {suffix.partition(".")[0]: n for n, suffix in enumerate(self.suffixes)}
        own = {q: self.members[:, columns[q], 1] > 0 for q in quantities if q in columns}
        numbers = frozenset(q for q in quantities if row_of(q).kind == "number")
        return [numbers.union(q for q in own if own[q][row]) for row in range(len(self))]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "sizes": self.sizes.tolist(), "members": self.members.tolist()}

    @classmethod
    def from_json(cls, values: Any, number: int) -> Tar:
        """Raises `ValueError` unless every part is what the reader relies on."""
        tar = cls(
            name=str(values["name"]),
            bytes=int(values["bytes"]),
            sha256=str(values["sha256"]),
            suffixes=tuple(values["suffixes"]),
            keys=tuple(map(str, values["keys"])),
            sizes=np.array(values["sizes"], np.int64),
            members=np.array(values["members"], np.int64),
        )
        if tar.name != tar_name(number):
            raise ValueError(f"tar {number} is called {tar.name!r}")
        if not all(map(is_member, tar.suffixes)) or "json" not in tar.suffixes:
            names = ", ".join(map(str, tar.suffixes))
            raise ValueError(f"{tar.name} has members {names}; is a package missing?")
        shapes = (len(tar), 2), (len(tar), len(tar.suffixes), 3)
        if not len(tar) or (tar.sizes.shape, tar.members.shape) != shapes:
            raise ValueError(f"{tar.name} has lists of different lengths")
        ends = tar.members[..., 0] + tar.members[..., 1]
        if (tar.members < 0).any() or (ends > tar.bytes).any():
            raise ValueError(f"{tar.name} has members outside the file")
        if (tar.sizes < 1).any() or (tar.sizes.max(0) > MAX_PIXELS).any():
            raise ValueError(f"{tar.name} has impossible sizes")
        if (tar.sizes.prod(1) > MAX_PIXELS).any():
            raise ValueError(f"{tar.name} has pictures of more than {MAX_PIXELS} pixels")
        return tar


@dataclass(frozen=True)
class Index:
    """A split of a data set in tars."""

    about: dict[str, Any]  # source, split, count, classes, categories, quantities, settings, ...
    # remarks: what `data.plausible` says of the samples, and whether that is grave
    tars: tuple[Tar, ...]

    def __len__(self) -> int:
        return sum(map(len, self.tars))


def tar_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def write_index(folder: Path, index: Index) -> None:
    tars = [tar.as_json() for tar in index.tars]
    write_json(folder / INDEX, {"format": FORMAT, **index.about, "tars": tars})


def read_index(path: Path) -> Index:
    """Raises `DataFormatError` unless the file is a whole index of this format."""
    values = read_json(path)
    try:
        if values.pop("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}; write the shards anew")
        tars = tuple(Tar.from_json(tar, n) for n, tar in enumerate(values.pop("tars")))
        index = Index(values, tars)
        _check_about(values, len(index))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataFormatError(f"{path}: no index of shards ({error!r}).") from error
    return index


def write_json(path: Path, values: Any) -> None:
    """Whole or not at all. Raises `UserError`."""
    write_whole(path, json.dumps(values, separators=(",", ":")))


def _check_about(about: dict[str, Any], count: int) -> None:
    if about["count"] != count:
        raise ValueError(f"{about['count']} samples are announced, {count} listed")
    for name in ("source", "split"):
        if not isinstance(about[name], str):
            raise ValueError(f"{name} is {about[name]!r}")
    for name in ("classes", "categories", "quantities"):
        if not all(isinstance(value, str) for value in about[name]):
            raise ValueError(f"{name} are {about[name]!r}")
    if not isinstance(about["settings"], dict):
        raise ValueError(f"settings are {about['settings']!r}")
    if not all(isinstance(n, int) for n in about["published"].values()):
        raise ValueError(f"published is {about['published']!r}")
