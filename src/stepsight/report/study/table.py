"""Points of the figures of a study from a CSV: anyone's numbers, or a sweep.csv.

A table has a row a point, with the columns figure (see `contents.KINDS`), line (what it belongs to,
such as a model), x (FLOPs) and y (an error or a loss: lower is better); lo, hi, task, metric and at
(its setting) if there are any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.report.run_folder import by
from stepsight.report.study.contents import KINDS, StudyPoint, error_of
from stepsight.scaling.reading import read_table
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.sweeps import REQUIRED, Cell, differing, main_metrics, read_sweep

COLUMNS = ("figure", "line", "x", "y")
NUMBERS = ("x", "y", "lo", "hi")
GIGA = 1e9


def read_points(path: Path) -> list[StudyPoint]:
    """The points of a table.

    Raises:
        UserError: there is no such file.
        DataFormatError: it lacks a column or a row names no figure or no number above 0; the
            message names the line.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Name a CSV of points, a sweep.csv, or records.")
    rows = read_table(path)
    if set(REQUIRED) <= set(rows.columns):
        return list(points_of_sweep(read_sweep(path)))
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataFormatError(
            f"{path}: lacks the column {', '.join(missing)}. A row is a point: {','.join(COLUMNS)}"
            f"[,lo,hi,task,metric,at]; figure is one of {', '.join(KINDS)}."
        )
    points = [_point(row, f"{path}:{line}") for line, row in rows.numbered.items()]
    if not points:
        raise DataFormatError(f"{path}: holds no points below its header.")
    return points


def _point(row: Mapping[str, str], where: str) -> StudyPoint:
    name = row["figure"].strip()
    if name not in KINDS:
        raise DataFormatError(f"{where}: there is no figure '{name}'.{suggest(name, KINDS)}")
    numbers = {key: _number(row.get(key) or "", key, where) for key in NUMBERS}
    texts = {key: row[key].strip() for key in ("task", "metric", "at") if row.get(key)}
    return StudyPoint(name, row["line"].strip(), **numbers, **texts)  # type: ignore[arg-type]


def _number(text: str, name: str, where: str) -> float:
    """A cell's number, nan where an interval's end is not given."""
    try:
        value = float(text) if text.strip() or name in ("x", "y") else math.nan
    except ValueError:
        value = -math.inf
    if name in ("x", "y") and not 0 < value < math.inf or value == -math.inf:
        raise DataFormatError(
            f"{where}: {name} is '{text[:40]}'. Axes are logarithmic: give a number above 0."
        )
    return value


def points_of_sweep(
    cells: Sequence[Cell], names: Mapping[str, str] | None = None
) -> Iterator[StudyPoint]:
    """The points over steps, over members and of both together, of each task's main metric.

    names: what a checkpoint is called, by its path as the sweep has it. Steps are shown at the
    fewest members, members at one number of steps, each in the way of sampling and at the steps
    that reach the lowest error so.
    """
    for task, metric in main_metrics(cells).items():
        of_task = [cell for cell in cells if (cell.task, cell.metric) == (task, metric)]
        known = [cell for cell in of_task if math.isfinite(cell.value)]
        several = len({cell.checkpoint for cell in known}) > 1
        for (checkpoint,), group in by(known, "checkpoint"):
            own = Path(checkpoint).name if several else ""
            yield from _points_of_checkpoint(group, (names or {}).get(checkpoint, own))


def _points_of_checkpoint(cells: Sequence[Cell], line: str) -> Iterator[StudyPoint]:
    families = by_family(cells)
    variants = differing(families)
    rows = {
        "steps": [_steps(group) for group in families.values()],
        "members": [
            [cell for cell in group if cell.nfe == nfe]
            for group in families.values()
            for nfe in {cell.nfe for cell in group}
        ],
        "budget": [cells],
    }
    for figure, offered in rows.items():
        varied = [row for row in offered if len(row) > 1]
        if varied:
            most = max(map(len, varied))
            full = [row for row in varied if len(row) == most]
            for cell in min(full, key=lambda row: min(cell.error for cell in row)):
                yield _cell_point(figure, line, cell, variants[cell.family])


def _steps(cells: Sequence[Cell]) -> list[Cell]:
    """The cells at the fewest members."""
    fewest = min(cell.members for cell in cells)
    return [cell for cell in cells if cell.members == fewest]


def _cell_point(figure: str, line: str, cell: Cell, variant: str) -> StudyPoint:
    lo, hi = sorted(error_of(cell.metric, end) for end in (cell.lo, cell.hi))
    at = f"{cell.nfe}x{cell.members} {variant}".strip()
    x, y = GIGA * cell.gflop_per_image, cell.error
    return StudyPoint(figure, line, x, y, lo, hi, cell.task, cell.metric, at)
