"""Tables and records as runs leave them, and what may have become of them: one mutation a case.

Half of the mutations are of bytes, as disks and transfers make them; the others keep the format and
put something into it that no run writes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepsight.cli.scaling.tables import Table
from stepsight.cli.show import results_table
from stepsight.report.scores import write_page
from stepsight.report.sweep.folder import read_sweep_folder
from stepsight.results import Ratio, Result, read_results
from stepsight.scaling import records
from stepsight.scaling.sampling.frontier import frontiers
from stepsight.scaling.sampling.sweeps import Cell, read_sweep, write_sweep

Change = Callable[[random.Random, bytes], bytes]
NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e400", "9" * 400, "9" * 5000, "1e-400", "0x10", "1_0")
TEXTS = (
    "",
    "\0",
    "x" * 200_000,
    "\ud800",
    "<img src=x onerror=1>",
    "=cmd|' /C calc'!A0",
    "\x1b[31m",
)
VALUES: tuple[Any, ...] = (None, True, [], {}, [[1]], {"a": {"b": None}}, -1, 0.5, 10**400, 2**70)


@dataclass(frozen=True)
class Reader:
    """A file that a run leaves, and who reads it. `read` uses what it got, too."""

    name: str
    whole: bytes
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """A file that was changed. Reading it must succeed or raise UserError."""

    reader: str
    change: str
    data: bytes
    read: Callable[[Path], Any]


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end, the readers in turn."""
    every = readers()
    while True:
        for reader in every:
            tables = CSV if reader.name.endswith(".csv") else JSON
            change = rng.choice([*BYTES.items(), *tables.items()])
            data = change[1](rng, reader.whole)
            if rng.random() < 0.2:
                data = rng.choice([*BYTES.values()])(rng, data)
            yield Case(reader.name, change[0], data, reader.read)


def readers() -> list[Reader]:
    """One per file."""
    with TemporaryDirectory() as folder:
        write_sweep(Path(folder, "sweep.csv"), _cells())
        sweep = Path(folder, "sweep.csv").read_bytes()
        records.append(Path(folder, "records.jsonl"), _records())
        ledger = Path(folder, "records.jsonl").read_bytes()
    results = json.dumps([_result(task).to_dict() for task in ("depth", "flow")], indent=2).encode()
    return [
        Reader("sweep.csv", sweep, _use_sweep),
        Reader("records.jsonl", ledger, _use_records),
        Reader("results.json", results, _use_results),
        Reader(
            "per_sample.csv", b"task,key,nfe,members,abs_rel\ndepth,a,1,1,0.5\n" * 3, _use_table
        ),
    ]


def _use_sweep(path: Path) -> None:
    cells = read_sweep(path)
    read_sweep_folder(path.parent)
    for task in {cell.task for cell in cells}:
        frontiers([cell for cell in cells if cell.task == task])


def _use_records(path: Path) -> None:
    found = records.read(path).records
    if found:
        records.column(found, "value")
    records.to_csv(path.with_name("copy.csv"), found)
    records.append(path, found)


def _use_results(path: Path) -> None:
    found = read_results(path)
    write_page(path.with_name("page.html"), found)
    results_table(found)


def _use_table(path: Path) -> None:
    table = Table.read(path, ["nfe=1"])
    table.numbers("abs_rel")
    table.values("key")


# ------------------------------------------------------------------------------ changes of bytes


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _holed(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + b"\0" * rng.randrange(64) + data[start + rng.randrange(64) :]


def _stuffed(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    more = rng.choice((rng.randbytes(8), b"\xff\xfe", b"[" * 50_000, b'{"a":' * 20_000, b'"'))
    return data[:start] + more + data[start:]


def _reordered(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines[: rng.randrange(len(lines) + 1)])


BYTES: dict[str, Change] = {
    "bits flipped": _flipped,
    "cut short": _cut,
    "holes": _holed,
    "bytes put in": _stuffed,
    "lines in disorder": _reordered,
}

# ----------------------------------------------------------------------------- changes of content


def _cell_replaced(rng: random.Random, data: bytes) -> bytes:
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(NUMBERS + TEXTS)
    return "\n".join(map(",".join, rows)).encode(errors="surrogatepass")


def _cells_moved(rng: random.Random, data: bytes) -> bytes:
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.choice(rows)
    if rng.random() < 0.5:
        del row[rng.randrange(len(row))]
    else:
        row.insert(rng.randrange(len(row)), "1")
    return "\n".join(map(",".join, rows)).encode()


def _value_replaced(rng: random.Random, data: bytes) -> bytes:
    """Somewhere in one of the objects, at any depth."""
    many = data.startswith(b"[")
    rows = json.loads(data) if many else [json.loads(line) for line in data.splitlines()]
    place = rng.choice(rows)
    while True:
        key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            break
        place = inner
    what = rng.random()
    if what < 0.1:
        del place[key]
    elif what < 0.2 and isinstance(place, dict):
        place[rng.choice(TEXTS)] = inner
    else:
        place[key] = rng.choice(VALUES + TEXTS + NUMBERS[:3])
    return _dumped(rows, many)


def _row_replaced(rng: random.Random, data: bytes) -> bytes:
    many = data.startswith(b"[")
    rows = json.loads(data) if many else [json.loads(line) for line in data.splitlines()]
    rows[rng.randrange(len(rows))] = rng.choice(VALUES + TEXTS)
    return _dumped(rows, many) if rng.random() < 0.9 else json.dumps(rng.choice(VALUES)).encode()


def _dumped(rows: list[Any], many: bool) -> bytes:
    text = json.dumps(rows) if many else "".join(json.dumps(row) + "\n" for row in rows)
    return text.encode(errors="surrogatepass")


CSV: dict[str, Change] = {"a cell replaced": _cell_replaced, "cells moved": _cells_moved}
JSON: dict[str, Change] = {"a value replaced": _value_replaced, "a row replaced": _row_replaced}

# -------------------------------------------------------------------------------- what runs leave


def _cells() -> list[Cell]:
    metrics = {"depth": "abs_rel", "flow": "epe"}
    shared: dict[str, Any] = {"sampler": "ddim", "spacing": "linspace", "schedule": "trained"}
    return [
        Cell(
            **shared,
            task=task,
            nfe=nfe,
            members=members,
            total_calls=nfe * members,
            gflop_per_image=0.2 * nfe * members,
            ms_per_image=2.0 * nfe * members,
            peak_gb=0.5,
            metric=metric,
            value=0.3 / (nfe * members) ** 0.1,
            lo=0.2,
            hi=0.4,
            checkpoint="runs/a",
            size="64x64",
            dataset="scenes",
            protocol=f"{task}@0123456789",
            images=8,
            weights="0123456789ab",
        )
        for task, metric in metrics.items()
        for nfe in (1, 2)
        for members in (1, 2)
    ]


def _records() -> list[records.ScalingRecord]:
    shared: dict[str, Any] = {"run": "a", "config": "c0ffee", "revision": "abc", "seed": 0}
    shared |= {"model": "split-32", "params_total": 1000, "params_active": 1000, "images_seen": 64}
    shared |= {"training_flops": 1e12, "task": "depth", "dataset": "scenes", "metric": "abs_rel"}
    shared |= {"protocol": "depth@0123456789", "sampler": "ddim", "inference_flops": 1e9}
    bins = (0.1, 0.2, None, 0.4)
    return [
        records.ScalingRecord(
            **shared, nfe=nfe, members=1, value=0.3, images=8, seconds=0.1, loss=0.2, loss_bins=bins
        )
        for nfe in (1, 2, 4)
    ]


def _result(task: str) -> Result:
    metric = {"depth": "abs_rel", "flow": "epe"}[task]
    return Result(
        task=task,
        data="scenes",
        options={"weights": "raw"},
        protocol=f"{task}@0123456789",
        sampler="ddim",
        nfe=4,
        members=2,
        n=8,
        expected=9,
        size=(64, 64),
        checkpoint="0123456789ab",
        metric=metric,
        metrics={metric: 0.3, "n_images": 8.0},
        intervals={metric: (0.2, 0.4)},
        uncertainty={"ause": 0.1},
        baselines={"constant": {metric: 0.6}},
        ratios={"constant": Ratio(0.5, 0.4, 0.6, metric)},
        seconds_per_image=0.1,
        skipped=("a",),
    )
