"""sweep.csv: what every measured test-time setting costs and reaches, one row a metric.

The columns up to `hi` are the interface; those after it tell apart rows that differ in more than
their setting, and a file without them can be read all the same.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import product
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
    where: str = field(default="", compare=False, repr=False)  # file:line, of one that was read

    @property
    def columns(self) -> dict[str, Any]:
        """A row of the table."""
        return {name: getattr(self, name) for name in COLUMNS}

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


COLUMNS = tuple(field.name for field in fields(Cell) if field.compare)
REQUIRED = tuple(field.name for field in fields(Cell) if field.default is MISSING)
_READ = {"int": int, "float": float, "str": str}
_COSTS = ("gflop_per_image", "ms_per_image", "latency_ms")
_AT_LEAST = {
    "nfe": 1,
    "members": 1,
    "total_calls": 1,
    "images": 0,
    "temperature": 0.0,
} | dict.fromkeys((*_COSTS, "peak_gb"), 0.0)
UNITS = 10.0  # times are noisy, but not by this factor
ROUNDING = 1e-6  # of a value
LARGEST = 2.0**63  # more is no number of calls, images or bytes


def read_sweep(path: str | Path) -> list[Cell]:
    """The rows of a sweep.csv in their order. Columns that are not known are ignored.

    Raises:
        UserError: there is no such file.
        DataFormatError: it lacks a column of the interface; a row holds no number where one
            belongs, one that cannot be, or numbers that contradict each other; two rows give one
            metric of one setting; or costs do not grow with calls. The message names line and
            column. A value that is empty or nan is no error: such rows are told by `left_out`.
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
    cells = [_cell(row, f"{path}:{line}") for line, row in rows.numbered.items()]
    _refuse_twice(cells)
    for cell in cells:
        _refuse_contradictions(cell)
    _refuse_costs(cells)
    return cells


def write_sweep(path: str | Path, cells: Iterable[Cell]) -> None:
    """Write the rows at once or not at all; floats are written so that they read back exactly."""
    path = Path(path)
    staged = path.with_name(f"{path.name}.part")
    with staged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(cell.columns for cell in cells)
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


def left_out(cells: Iterable[Cell], task: str, metric: str, cost: str) -> list[str]:
    """The rows of a metric without a value or without a cost, a column's name: nothing is planned
    with them. Each by its place, with the column that holds no number."""
    return [
        f"{cell.where or f'{cell.nfe} NFE x {cell.members} members'} ({column} is no number)"
        for cell in cells
        if (cell.task, cell.metric) == (task, metric)
        for column in ("value", cost)
        if not math.isfinite(getattr(cell, column))
    ]


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


def _refuse_twice(cells: Sequence[Cell]) -> None:
    """Raise DataFormatError for a metric that is given twice for one setting."""
    first: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        if (other := first.setdefault((*_kind(cell), cell.setting), cell)) is not cell:
            raise DataFormatError(
                f"{other.where} and {cell.where} both give {cell.metric} of {cell.task} at "
                f"{cell.nfe} NFE x {cell.members} members ({cell.family}). Keep one of them."
            )


def _refuse_costs(cells: Sequence[Cell]) -> None:
    """Raise DataFormatError where more calls of one family cost fewer FLOPs, or milliseconds that
    differ by more than `UNITS` times what the calls explain, as those of two units do."""
    kinds: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(_kind(cell), []).append(cell)
    for of_kind in kinds.values():
        for low, high in product(of_kind, of_kind):
            if low is not high and low.nfe <= high.nfe and low.members <= high.members:
                _refuse_pair(low, high)


def _refuse_pair(low: Cell, high: Cell) -> None:
    """`high` spends more calls than `low`, all else the same."""
    for name in _COSTS:
        less, more = getattr(low, name), getattr(high, name)
        both = f"{low.where} and {high.where}: {name} is {less:g} for {low.total_calls} calls and "
        both += f"{more:g} for {high.total_calls}"
        if name == "gflop_per_image" and more <= less:
            raise DataFormatError(f"{both}. More calls cost more: correct one of them.")
        if more < less / UNITS or more > UNITS * less * high.total_calls / low.total_calls:
            raise DataFormatError(f"{both}. They seem to have different units: correct one.")


def _kind(cell: Cell) -> tuple[Any, ...]:
    """What rows share that differ in NFE and members alone."""
    return cell.task, cell.dataset, cell.protocol, cell.metric, cell.family


def _cell(row: dict[str, str], where: str) -> Cell:
    values: dict[str, Any] = {"where": where}
    for each in fields(Cell)[:-1]:
        text = row.get(each.name)
        kind = str(each.type).removesuffix(" | None")
        if text or (text is not None and kind == "str"):
            values[each.name] = _value(text, kind, each.name, where)
        elif each.name in REQUIRED:
            if kind != "float":
                raise DataFormatError(f"{where}: {each.name} is empty.")
            values[each.name] = math.nan
    return Cell(**values)


def _refuse_contradictions(cell: Cell) -> None:
    """Raise DataFormatError for numbers of one row that cannot be true together."""
    calls, width = cell.nfe * cell.members, cell.hi - cell.lo
    outside = max(cell.lo - cell.value, cell.value - cell.hi)
    told = f"{cell.metric} {cell.value:g} with lo {cell.lo:g} and hi {cell.hi:g}"
    if cell.total_calls != calls:
        said = f"total_calls is {cell.total_calls}, and nfe x members is {calls}"
    elif math.isnan(cell.lo) != math.isnan(cell.hi):
        said = f"{told}: an interval has two ends, or neither is given"
    elif width < 0:
        said = f"{told}: lo is above hi"
    elif outside > width + ROUNDING * abs(cell.value):  # a skew bootstrap may miss it by a little
        said = f"{told}: value lies far outside of lo to hi"
    else:
        return
    raise DataFormatError(f"{cell.where}: {said}. Correct the row, or leave it out.")


def _value(text: str, kind: str, name: str, where: str) -> Any:
    try:
        value = _READ[kind](text)
    except ValueError as error:
        raise DataFormatError(f"{where}: {name} cannot be {text[:60]!r}.") from error
    if name in _COSTS and value <= 0:
        raise DataFormatError(f"{where}: {name} cannot be {text.strip()[:60]}: costs are above 0.")
    least = _AT_LEAST.get(name)
    if least is not None and value < least:
        raise DataFormatError(f"{where}: {name} cannot be {text.strip()[:60]}, below {least:g}.")
    if least is not None and (value >= LARGEST or (name == "temperature" and math.isnan(value))):
        raise DataFormatError(f"{where}: {name} cannot be {text.strip()[:60]}.")
    return value
