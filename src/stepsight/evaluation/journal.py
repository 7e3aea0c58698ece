"""The journal of an evaluation: what is scored already, so that a killed one goes on from there.

Each process appends to a file of its own, `journal/<name>-<fingerprint>.<rank>.jsonl`: a header
that says what the fingerprint covers (weights, protocols, sampler, steps, members, seed, data),
then one line an image. Numbers come back bit for bit. The name is that of the task, in a sweep with
the variant; an evaluation of anything else under that name has another fingerprint and starts anew.
The journal is removed once the results are written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.metrics.masked import Rows


@dataclass
class Record:
    """All that is kept of one scored image.

    tables: by "protocol/kind/name", the rows of the image without their leading "b".
    """

    place: int  # among the images asked for
    key: str
    tables: dict[str, Rows] = field(default_factory=dict)

    def line(self) -> str:
        """The record as one line of JSON."""
        tables = {
            table: {name: _packed(value) for name, value in rows.items()}
            for table, rows in self.tables.items()
        }
        return json.dumps({"place": self.place, "key": self.key, "tables": tables})

    @classmethod
    def of(cls, line: str) -> Record:
        """The record that `line` holds. Raises ValueError or KeyError for a torn line."""
        read = json.loads(line)
        tables = {
            table: {name: _unpacked(*value) for name, value in rows.items()}
            for table, rows in read["tables"].items()
        }
        return cls(read["place"], read["key"], tables)


class Journal:
    """One evaluation of one task by one of several processes. `name` tells it from others that are
    under way in the same folder.

    subject: everything that decides the scores, as JSON can write it. say: told about images taken
    over, and about the journal of another evaluation, which is thrown away.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        subject: Mapping[str, Any],
        rank: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        self._header = json.dumps(subject, sort_keys=True)
        self._own = f"{name}-{hashlib.sha256(self._header.encode()).hexdigest()[:12]}"
        self._folder, self._name, self._rank, self._say = folder, name, rank, say

    def records(self) -> dict[int, Record]:
        """What all processes scored before this one started, by place."""
        self._drop_others()
        lines = (line for path in self._files() for line in _lines(path))
        found = {record.place: record for line in lines if (record := _whole(line))}
        if found and self._rank == 0:
            self._say(f"{self._name}: {len(found)} images were scored before; going on from there.")
        return found

    def add(self, records: Iterable[Record]) -> None:
        """Append records. Once this returns they outlive the process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._own}.{self._rank}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(
                _start(path, self._header) + "".join(record.line() + "\n" for record in records)
            )

    def remove(self) -> None:
        """Forget this evaluation; call it once, when its results are written."""
        for path in self._files():
            path.unlink()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._own}.*.jsonl"))

    def _drop_others(self) -> None:
        own = set(self._files())
        alike = re.compile(rf"{re.escape(self._name)}-[0-9a-f]{{12}}\.\d+\.jsonl")
        named = [path for path in self._folder.glob("*.jsonl") if alike.fullmatch(path.name)]
        others = [path for path in named if path not in own]
        if others and self._rank == 0:
            self._say(f"{self._name}: {self._folder} is of another evaluation; starting anew.")
            for path in others:
                path.unlink(missing_ok=True)


def _start(path: Path, header: str) -> str:
    """What comes before the next record of an open journal."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return header + "\n"
        file.seek(-1, os.SEEK_END)
        # A last line that was torn must not swallow the next.
        return "" if file.read(1) == b"\n" else "\n"


def _lines(path: Path) -> Iterator[str]:
    """The lines after the header."""
    yield from path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]


def _whole(line: str) -> Record | None:
    """The record, or None where the process died while it wrote."""
    try:
        return Record.of(line)
    except (ValueError, KeyError):
        return None


def _packed(value: Tensor) -> list[Any]:
    """Type, shape, and where it is not 0: most of a confusion matrix is."""
    flat = value.flatten()
    places = flat.nonzero()[:, 0]
    kind = str(value.dtype).removeprefix("torch.")
    return [kind, list(value.shape), places.tolist(), flat[places].tolist()]


def _unpacked(kind: str, shape: list[int], places: list[int], values: list[Any]) -> Tensor:
    dtype = getattr(torch, kind)
    flat = torch.zeros(math.prod(shape), dtype=dtype)
    flat[torch.tensor(places, dtype=torch.long)] = torch.tensor(values, dtype=dtype)
    return flat.reshape(shape)
