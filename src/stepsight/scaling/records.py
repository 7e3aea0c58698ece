"""The ledger of the scaling analysis: one flat JSON line for every evaluated point.

A run appends to its own `records.jsonl`; an analysis reads any number of such files and folders.
Lines are plain JSON with one level of keys, so that any tool can read them without this package.
"""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.scaling.plain import plain

FILE_NAME = "records.jsonl"
SCHEMA = 2  # 2: tokens, samples, working size, parent, time; several metrics a setting
BIN = "loss_bin_"
PIXELS = "pixels"  # a column that follows from the working size
OF_THE_OCCASION = ("time", "seconds")  # what another run of the same evaluation may change
LARGEST = 2**63  # of whole numbers
LONG = 60  # characters of a value that a message shows
_BIN = re.compile(rf"{BIN}[0-9]{{1,4}}")


@dataclass(frozen=True, kw_only=True)
class ScalingRecord:
    """One metric of one checkpoint under one test-time setting.

    None means not measured. A float that is not finite is written as null, and so reads as None.
    """

    run: str  # name of the run; the unit that bootstraps over runs resample
    config: str  # fingerprint of the resolved configuration
    revision: str  # of the code
    seed: int
    model: str
    params_total: int
    params_active: int  # those that act on one sample; fewer than the total in mixtures of experts
    training_flops: float  # spent up to this checkpoint, forward and backward
    images_seen: int
    task: str
    dataset: str
    protocol: str  # identifier of the evaluation protocol; scores of different ones never mix
    sampler: str
    nfe: int  # model calls a member
    members: int
    inference_flops: float  # one image: all calls of all members
    metric: str
    value: float | None
    images: int  # evaluated
    lower_is_better: bool = True
    lo: float | None = None  # ends of the 95 % interval of `value`
    hi: float | None = None
    seconds: float | None = None  # one image
    loss: float | None = None  # validation loss of the task on noise that all checkpoints share
    loss_bins: tuple[float | None, ...] = ()  # the same in bins of the noise level, clean to noisy
    trivial: float | None = None  # the metric of the best trivial predictor
    tokens: float | None = None  # images seen x cells of the backbone's coarsest grid
    samples: int | None = None  # distinct training samples of the task
    size: str = ""  # working size, HxW
    parent: str = ""  # run whose weights it started from
    inherited_flops: float | None = None  # spent on those, and on what they started from
    time: str = ""  # of the evaluation, ISO 8601, UTC
    schema: int = SCHEMA

    @property
    def pixels(self) -> int | None:
        """Of the working size; None where it is not known."""
        sides = self.size.split("x")
        return math.prod(map(int, sides)) if all(map(str.isdecimal, sides)) else None

    def flat(self) -> dict[str, Any]:
        """One level of keys; the bins become `loss_bin_0`, `loss_bin_1`, ..."""
        row = asdict(self)
        bins = row.pop("loss_bins")
        row |= {f"{BIN}{number}": value for number, value in enumerate(bins)}
        return plain(row)


class Reading(NamedTuple):
    """What was read, and what a reader ought to be told about it."""

    records: list[ScalingRecord]
    notes: list[str]


def append(path: str | Path, records: Iterable[ScalingRecord]) -> None:
    """Add records to a ledger (`append_lines`). One that is there already, of whatever time and
    however long it took, is not added again: an evaluation may be resumed when it was killed after
    it had written them."""
    append_lines(path, (record.flat() for record in records), besides=OF_THE_OCCASION)


def append_lines(
    path: str | Path, rows: Iterable[dict[str, Any]], besides: Sequence[str] = ()
) -> None:
    """Add rows of plain values to a JSON-lines file, each once; `besides`: fields in which rows may
    differ that are the same.

    Writers take turns. What a crash left of a line at the end of the file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        with suppress(OSError):  # a file system without locks has one writer, we hope
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read()
        whole = before if _parsed(before.rpartition(b"\n")[2]) else _up_to_newline(before)
        if whole != before:
            file.truncate(len(whole))
        there = {_same(row, besides) for line in whole.splitlines() if (row := _parsed(line))}
        fresh = {same: row for row in rows if (same := _same(row, besides)) not in there}
        start = b"" if not whole or whole.endswith(b"\n") else b"\n"
        lines = (json.dumps(row, allow_nan=False).encode() + b"\n" for row in fresh.values())
        file.write(start + b"".join(lines))
        file.flush()
        os.fsync(file.fileno())


def read(*paths: str | Path) -> Reading:
    """Records of ledgers and of folders of runs (searched for `records.jsonl`), in path order.

    Identical lines, as left by copied ledgers, count once, and so do those that differ in no more
    than `append` allows: earlier versions left them where an evaluation was resumed.

    Raises:
        UserError: a path does not exist, or a ledger was written by a newer version.
        DataFormatError: a line is not a record; the message names file and line.
    """
    records: dict[ScalingRecord, ScalingRecord] = {}
    notes: list[str] = []
    for file in _ledgers(paths):
        repeated = 0
        for where, line in whole_lines(file):
            if line is None:
                notes.append(f"{where}: dropped a line cut short by a crash")
                continue
            record = _parse(line, where)
            first = records.setdefault(replace(record, time="", seconds=None), record)
            repeated += first != record
        if repeated:
            notes.append(f"{file}: {repeated} lines repeat an evaluation, and are left out")
    return Reading(list(records.values()), notes)


def column(records: Sequence[ScalingRecord], name: str) -> np.ndarray:
    """One numeric field, or `pixels`, as float64 "n", nan where it was not measured.

    Raises:
        UserError: records have no numeric field of that name.
    """
    rows = [record.flat() | {PIXELS: record.pixels} for record in records]
    known = _NUMERIC.union([PIXELS], *(filter(_BIN.fullmatch, row) for row in rows))
    if name not in known:
        raise UserError(f"Records have no numeric column '{name}'.{suggest(name, known)}")
    return np.array([row.get(name) for row in rows], dtype=float)  # None becomes nan


def to_csv(path: str | Path, records: Sequence[ScalingRecord]) -> None:
    """Write a table with one row a record; columns that a record lacks stay empty."""
    rows = [record.flat() for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


# What JSON may hold in each field. Annotations are strings here: the module defers them.
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (float, int),
    "float | None": (float, int, type(None)),
}
_FIELDS = {f.name: f for f in fields(ScalingRecord) if f.name != "loss_bins"}
_KINDS = {name: _JSON_TYPES[str(f.type)] for name, f in _FIELDS.items()}
_REQUIRED = {name for name, f in _FIELDS.items() if f.default is MISSING} | {"schema"}
_NUMERIC = {name for name, kinds in _KINDS.items() if int in kinds}


def whole_lines(path: Path) -> Iterator[tuple[str, str | None]]:
    """Where each line of a JSON-lines file stands, and the line: None for one that was cut short.

    Undecodable bytes are kept as marks, so that the line they are in is reported.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        torn = line.startswith("{") and not line.rstrip().endswith("}")
        if line.strip():
            yield f"{path}:{number}", None if torn else line


def _up_to_newline(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _same(row: dict[str, Any], besides: Sequence[str]) -> str:
    """Equal for rows that are the same but for the fields `besides`."""
    return json.dumps({k: v for k, v in row.items() if k not in besides}, sort_keys=True)


def _ledgers(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders searched; each ledger once."""
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(
                f"{path} does not exist. Name a ledger ({FILE_NAME}) or a run's folder."
            )
        for file in sorted(path.rglob(FILE_NAME)) if path.is_dir() else [path]:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _parse(line: str, where: str) -> ScalingRecord:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # also of numbers of too many digits
        raise DataFormatError(f"{where}: not a JSON line ({error}).") from error
    if not isinstance(row, dict):
        raise DataFormatError(f"{where}: expected a JSON object, found {type(row).__name__}.")
    _check_schema(row.get("schema"), where)
    bins = [row.pop(key) for key in sorted(filter(_BIN.fullmatch, row), key=_bin_number)]
    _check_fields(row, bins, where)
    return ScalingRecord(**row, loss_bins=tuple(bins))


def _bin_number(key: str) -> int:
    return int(key.removeprefix(BIN))


def _check_schema(schema: Any, where: str) -> None:
    if type(schema) is not int:
        raise DataFormatError(f"{where}: not a scaling record, it has no 'schema' number.")
    if schema > SCHEMA:
        raise UserError(
            f"{where}: written in schema {schema}, this version reads up to {SCHEMA}. "
            "Upgrade stepsight to read it."
        )


def _check_fields(row: dict[str, Any], bins: list[Any], where: str) -> None:
    """Names and JSON types, so that a bad line fails here and not inside a fit."""
    if missing := _REQUIRED - row.keys():
        raise DataFormatError(f"{where}: lacks {', '.join(sorted(missing))}.")
    for key, value in [*row.items(), *((f"{BIN}{n}", value) for n, value in enumerate(bins))]:
        kinds = _JSON_TYPES["float | None"] if _BIN.fullmatch(key) else _KINDS.get(key)
        if kinds is None:
            raise DataFormatError(f"{where}: unknown field {key[:LONG]!r}.{suggest(key, _KINDS)}")
        if type(value) not in kinds or not _sane(value):
            shown = json.dumps(value)
            shown = shown if len(shown) < LONG else f"{shown[:LONG]}..."
            raise DataFormatError(f"{where}: {key} cannot be {shown}.")


def _sane(value: Any) -> bool:
    """Whether a number is one that arrays can hold, and a text one that files can."""
    if isinstance(value, str):
        return value.encode(errors="ignore").decode() == value
    return not isinstance(value, int) or abs(value) < LARGEST
