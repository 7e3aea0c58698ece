"""sweep.csv: what every measured test-time setting costs and reaches, one row a metric.

The columns up to `hi` are the interface; those after it tell apart rows that differ in more than
their setting, and a file without them can be read all the same.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.measures import main_metric, measure


class Family(NamedTuple):
    """All that stays the same where only NFE and members change."""

    checkpoint: str
    size: str
    sampler: str
    spacing: str
    schedule: str
    merge: str

    def __str__(self) -> str:
        return " ".join(part for part in self if part)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one test-time setting. Unknown numbers are nan."""

    task: str
    sampler: str
    spacing: str
    schedule: str
    nfe: int  # model calls a member
    members: int
    total_calls: int  # nfe * members
    gflop_per_image: float  # all calls of all members
    ms_per_image: float
    peak_gb: float  # of memory
    metric: str
    value: float
    lo: float  # 95 % interval over images
    hi: float
    checkpoint: str = ""  # the path as it was given
    size: str = ""  # working size, HxW
    merge: str = ""  # rule that made one answer of the members
    dataset: str = ""
    protocol: str = ""  # name@hash; values of different ones never mix
    images: int | None = None  # scored
    weights: str = ""  # digest of the checkpoint's

    @property
    def family(self) -> Family:
        return Family(
            self.checkpoint, self.size, self.sampler, self.spacing, self.schedule, self.merge
        )

    @property
    def setting(self) -> tuple[int, int]:
        return self.nfe, self.members

    @property
    def error(self) -> float:
        """`value`, or 1 - `value` where higher is better: lower is better in all errors."""
        return 1 - self.value if measure(self.metric).higher_is_better else self.value


COLUMNS = tuple(field.name for field in fields(Cell))
REQUIRED = tuple(field.name for field in fields(Cell) if field.default is MISSING)
_READ = {"int": int, "float": float, "str": str}


def read_sweep(path: str | Path) -> list[Cell]:
    """The rows of a sweep.csv in their order. Columns that are not known are ignored.

    Raises:
        UserError: there is no such file.
        DataFormatError: it lacks a column of the interface, or a row holds no number where one
            belongs; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Name a sweep.csv; evaluate.py --checkpoint RUN --sweep "
            "writes one."
        )
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise DataFormatError(f"{path}: not a sweep.csv, it lacks {', '.join(missing)}.")
        return [_cell(row, f"{path}:{reader.line_num}") for row in reader]


def write_sweep(path: str | Path, cells: Iterable[Cell]) -> None:
    """Write the rows at once or not at all; floats are written so that they read back exactly."""
    path = Path(path)
    staged = path.with_name(f"{path.name}.part")
    with staged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in cells)
    os.replace(staged, path)


def select(cells: Sequence[Cell], task: str, metric: str) -> list[Cell]:
    """The rows of one metric of one task whose value is a number.

    Raises:
        UserError: there are none, or they were scored on several data sets or protocols.
    """
    of_task = [cell for cell in cells if cell.task == task]
    if not of_task:
        raise UserError(
            f"The sweep holds no task '{task}'.{suggest(task, {cell.task for cell in cells})}"
        )
    chosen = [cell for cell in of_task if cell.metric == metric and math.isfinite(cell.value)]
    if not chosen:
        known = {cell.metric for cell in of_task if math.isfinite(cell.value)}
        raise UserError(f"The sweep holds no '{metric}' of {task}.{suggest(metric, known)}")
    kinds = sorted({f"{cell.dataset} {cell.protocol}".strip() for cell in chosen})
    if len(kinds) > 1:
        raise UserError(
            f"The sweep holds {metric} of {task} under {len(kinds)} data sets or protocols: "
            f"{', '.join(kinds)}. Values of different ones do not compare: keep one of them."
        )
    return chosen


def main_of(cells: Iterable[Cell], task: str) -> str:
    """The main metric of a task among those with a number; '' where there are none."""
    return main_metrics(cell for cell in cells if cell.task == task).get(task, "")


def main_metrics(cells: Iterable[Cell]) -> dict[str, str]:
    """The main metric of every task that has one with a number, in order of appearance."""
    offered: dict[str, dict[str, None]] = {}
    for cell in cells:
        if math.isfinite(cell.value):
            offered.setdefault(cell.task, {})[cell.metric] = None
    return {task: main for task, known in offered.items() if (main := main_metric(task, known))}


def _cell(row: dict[str, Any], where: str) -> Cell:
    values: dict[str, Any] = {}
    for field in fields(Cell):
        text = row.get(field.name)
        kind = str(field.type).removesuffix(" | None")
        if text or (text is not None and kind == "str"):
            values[field.name] = _value(text, kind, field.name, where)
        elif field.name in REQUIRED:
            if kind != "float":
                raise DataFormatError(f"{where}: {field.name} is empty.")
            values[field.name] = math.nan
    return Cell(**values)


def _value(text: str, kind: str, name: str, where: str) -> Any:
    try:
        return _READ[kind](text)
    except ValueError as error:
        raise DataFormatError(f"{where}: {name} cannot be '{text}'.") from error
