"""sweep.csv: what every measured test-time setting costs and reaches, one row a metric.

The columns up to `hi` are the interface; those after it tell apart rows that differ in more than
their setting, and a file without them can be read all the same.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from stepsight.errors import DataFormatError, UserError, command, suggest
from stepsight.measures import main_metric, measure
from stepsight.scaling.reading import read_table


class Family(NamedTuple):
    """All that stays the same where only NFE and members change."""

    checkpoint: str
    size: str
    sampler: str
    spacing: str
    schedule: str
    merge: str
    temperature: str = "1"  # of the start noise
    views: str = "none"

    def __str__(self) -> str:
        return " ".join(part for part in self.parts if part)

    @property
    def parts(self) -> tuple[str, ...]:
        """Field by field as people read it; "" where there is nothing to say."""
        views = "" if self.views == "none" else f"{self.views} views"
        return (*self[:6], f"T {self.temperature}", views)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Family:
        """The family that a row of a table tells in as many columns; what it lacks is as usual."""
        family = {name: str(row.get(name) or "") for name in cls._fields[:6]}
        temperature = row.get("temperature")
        family["temperature"] = temperature_text(1.0 if temperature is None else temperature)
        return cls(**family, views=str(row.get("views") or "none"))


def temperature_text(value: float | str) -> str:
    """Such as 0 or 0.5, exactly."""
    return str(float(value)).removesuffix(".0")


def differing(families: Iterable[Family]) -> dict[Family, str]:
    """What tells each family from the others: the parts in which not all of them agree."""
    families = list(families)
    unlike = [len(set(parts)) > 1 for parts in zip(*families)]
    return {
        family: ", ".join(part for part, differs in zip(family.parts, unlike) if differs and part)
        for family in families
    }


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
    ms_per_image: float  # of this setting by itself, among the many pictures of a batch
    peak_gb: float  # of memory
    metric: str
    value: float
    lo: float  # 95 % interval over images
    hi: float
    latency_ms: float = math.nan  # of one picture alone; early files did not time it
    checkpoint: str = ""  # the path as it was given
    size: str = ""  # working size, HxW
    merge: str = ""  # rule that made one answer of the members
    dataset: str = ""
    protocol: str = ""  # name@hash; values of different ones never mix
    images: int | None = None  # scored
    weights: str = ""  # digest of the checkpoint's
    temperature: float = 1.0  # of the start noise; early files knew no other
    views: str = "none"  # what further calls see of the picture

    @property
    def family(self) -> Family:
        return Family.of(vars(self))

    @property
    def setting(self) -> tuple[int, int]:
        return self.nfe, self.members

    @property
    def error(self) -> float:
        """How far `value` is from the best there is: lower is better in all errors."""
        return measure(self.metric).error(self.value)


COLUMNS = tuple(field.name for field in fields(Cell))
REQUIRED = tuple(field.name for field in fields(Cell) if field.default is MISSING)
_READ = {"int": int, "float": float, "str": str}
_AT_LEAST = {
    "nfe": 1,
    "members": 1,
    "total_calls": 1,
    "images": 0,
    "temperature": 0.0,
} | dict.fromkeys(("gflop_per_image", "ms_per_image", "latency_ms", "peak_gb"), 0.0)
LARGEST = 2.0**63  # more is no number of calls, images or bytes


def read_sweep(path: str | Path) -> list[Cell]:
    """The rows of a sweep.csv in their order. Columns that are not known are ignored.

    Raises:
        UserError: there is no such file.
        DataFormatError: it lacks a column of the interface, a row holds no number where one
            belongs or one that cannot be, or two rows give one metric of one setting; the message
            names the lines.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Name a sweep.csv; one is written by "
            f"`{command('evaluate', '--checkpoint', 'RUN', '--sweep')}`."
        )
    rows = read_table(path)
    missing = [name for name in REQUIRED if name not in rows.columns]
    if missing:
        raise DataFormatError(f"{path}: not a sweep.csv, it lacks {', '.join(missing)}.")
    numbered = {line: _cell(row, f"{path}:{line}") for line, row in rows.numbered.items()}
    _refuse_twice(path, numbered)
    return list(numbered.values())


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


def unmeasured(cells: Iterable[Cell], task: str, metric: str) -> int:
    """The rows of a metric that hold no number, which `select` leaves out."""
    rows = (cell for cell in cells if (cell.task, cell.metric) == (task, metric))
    return sum(not math.isfinite(cell.value) for cell in rows)


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


def _refuse_twice(path: Path, numbered: Mapping[int, Cell]) -> None:
    """Raise DataFormatError for a metric that is given twice for one setting."""
    first: dict[tuple[Any, ...], int] = {}
    for line, cell in numbered.items():
        whose = (cell.task, cell.dataset, cell.protocol, cell.metric, cell.family, cell.setting)
        if (other := first.setdefault(whose, line)) != line:
            raise DataFormatError(
                f"{path}:{other} and {path}:{line} both give {cell.metric} of {cell.task} at "
                f"{cell.nfe} NFE x {cell.members} members ({cell.family}). Keep one of them."
            )


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
        value = _READ[kind](text)
    except ValueError as error:
        raise DataFormatError(f"{where}: {name} cannot be {text[:60]!r}.") from error
    least = _AT_LEAST.get(name)
    if least is not None and value < least:
        raise DataFormatError(f"{where}: {name} cannot be {text.strip()[:60]}, below {least:g}.")
    if least is not None and (value >= LARGEST or (name == "temperature" and math.isnan(value))):
        raise DataFormatError(f"{where}: {name} cannot be {text.strip()[:60]}.")
    return value
