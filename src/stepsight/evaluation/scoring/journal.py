"""The journal of an evaluation: what is scored already, so that a killed one goes on from there.

Each process appends to a separate file, `journal/<name>-<fingerprint>.<rank>.jsonl`: a header
that says what the fingerprint covers (weights, protocols, sampler, steps, members, seed, data),
then one line per image. Numbers come back bit for bit. The name is that of the task, in a sweep
with the variant; an evaluation of anything else under that name has another fingerprint and starts
anew. The journal is removed once the results are written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from stepsight.data.resize import Size
from stepsight.metrics.masked import Rows
from stepsight.scaling.sampling.paired import Setting

TableKind = Literal["score", "uncertainty", "baseline", "resized", "native"]


class TableKey(NamedTuple):
    """What a table of rows holds. Of the truth that went through the working size and back there
    are two kinds: "resized", and "native" where that size is the image's."""

    protocol: str
    kind: TableKind
    nfe: int = 0
    members: int = 0
    merge: str = ""  # the rule that merged the members, where several were asked for
    baseline: str = ""  # the trivial predictor

    @property
    def setting(self) -> Setting:
        return self.nfe, self.members


class Usage(NamedTuple):
    """What an estimate took."""

    seconds: float  # per image
    working: Size
    peak_gb: float  # of memory
    fits: bool = True  # whether the image was seen at the size that the protocol asks for


@dataclass
class Record:
    """All that is kept of a scored image."""

    place: int  # among the images asked for
    key: str
    tables: dict[TableKey, Rows] = field(default_factory=dict)  # rows without their leading "b"
    usage: dict[TableKey, Usage] = field(default_factory=dict)  # by the key of the score
    failed: bool = False  # whether a model's answer held a NaN or an infinity
    bad: str = ""  # why it could not be scored

    def line(self) -> str:
        """The record as one line of JSON."""
        tables = [
            [key, {name: _packed(value) for name, value in rows.items()}]
            for key, rows in self.tables.items()
        ]
        row = {"place": self.place, "key": self.key, "failed": self.failed, "bad": self.bad}
        return json.dumps(row | {"tables": tables, "usage": list(self.usage.items())})

    @classmethod
    def of(cls, line: str) -> Record:
        """The record that `line` holds. Raises ValueError or KeyError for a torn line."""
        row = json.loads(line)
        tables = {
            TableKey(*key): {name: _unpacked(*value) for name, value in rows.items()}
            for key, rows in row["tables"]
        }
        usage = {TableKey(*k): Usage(s, (h, w), *more) for k, (s, (h, w), *more) in row["usage"]}
        state = row.get("failed", False), row.get("bad", "")
        return cls(row["place"], row["key"], tables, usage, *state)


class Journal:
    """An evaluation of a task by one of several processes. `name` tells it from others that are
    under way in the same folder.

    subject: everything that decides the scores, as JSON can write it. say: is called with messages
    about images taken over, and about the journal of another evaluation, which is thrown away.
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
        self._stem = f"{name}-{hashlib.sha256(self._header.encode()).hexdigest()[:12]}"
        self.folder, self._name, self._rank, self._say = folder, name, rank, say

    def records(self) -> dict[int, Record]:
        """What all processes scored before this process started, by place."""
        self._drop_others()
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in self._files())
        lines = (line for text in texts for line in text.splitlines()[1:])  # after the header
        records: dict[int, Record] = {}
        for line in lines:
            with suppress(ValueError, KeyError):  # the process died while it wrote the line
                record = Record.of(line)
                records[record.place] = record
        scored = sum(not record.bad for record in records.values())
        if scored and self._rank == 0:
            self._say(f"{self._name}: {scored} images were scored before; going on.")
        return records

    def add(self, records: Iterable[Record]) -> None:
        """Append records. Once this returns they outlive the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._stem}.{self._rank}.jsonl"
        begun = path.exists() and path.stat().st_size > 0
        start = "" if begun else self._header  # and a torn line must not swallow the next
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join([start, *(record.line() for record in records), ""]))

    def remove(self) -> None:
        """Forget this evaluation; call it once, when its results are written."""
        for path in self._files():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._stem}.*.jsonl"))

    def _drop_others(self) -> None:
        ours = set(self._files())
        alike = re.compile(rf"{re.escape(self._name)}-[0-9a-f]{{12}}\.\d+\.jsonl")
        named = [path for path in self.folder.glob("*.jsonl") if alike.fullmatch(path.name)]
        others = [path for path in named if path not in ours]
        if others and self._rank == 0:
            self._say(f"{self._name}: {self.folder} is of another evaluation; starting anew.")
            for path in others:
                path.unlink(missing_ok=True)


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
