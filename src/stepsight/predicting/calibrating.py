"""From depth up to scale and shift to metres, by a few distances that somebody measured.

With y = f(depth) in the space of the model (log depth unless it was trained otherwise), the known
distances are fitted by scale y + shift, by least squares. Intervals are Student's t of that fit, at
95 %, as if errors were independent and alike: points of one picture share its error, so that of
several pictures more is known than of many points. The record is kept in the checkpoint, and
`DensePipeline` answers by it from then on.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepsight.data.decoding.annotations import parse_json, read_text
from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.depth import Depth

FEWEST = 3  # points: two of them leave nothing to tell the error by
LEVEL = 0.95
COLUMNS = ("picture", "x", "y", "metres")


@dataclass(frozen=True)
class Known:
    """A point of a picture whose distance is known."""

    picture: Path
    x: float  # pixels from the left edge of the upright picture, from 0
    y: float  # from its upper edge
    metres: float  # along the optical axis
    where: str  # the line that says so


def read_known(path: Path | str) -> list[Known]:
    """The points of a file: CSV with a head line of `COLUMNS`, or JSON lines with these names.
    Pictures are named from the file's folder.

    Raises DataFormatError, naming the line, for a value that is missing or no number, a distance
    that is not above 0, and a point that is there twice.
    """
    path = Path(path)
    lines = read_text(path).splitlines()
    rows: list[tuple[int, Mapping[str, Any]]]
    if lines and lines[0].lstrip().startswith("{"):
        held = ((n, line) for n, line in enumerate(lines, 1) if line.strip())
        rows = [(n, parse_json(line, f"{path}:{n}")) for n, line in held]
    else:
        reader = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
        if lost := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise DataFormatError(
                f"{path}: its first line names no {', '.join(lost)}. Begin with "
                f"{','.join(COLUMNS)}, or write JSON lines of these."
            )
        rows = [(reader.line_num, row) for row in reader]
    points = [_known(path, number, row) for number, row in rows]
    seen: dict[tuple[Path, float, float], str] = {}
    for point in points:
        place = point.picture, point.x, point.y
        if place in seen:
            raise DataFormatError(f"{point.where}: the point of {seen[place]} again.")
        seen[place] = point.where
    return points


def predicted(
    pipeline: DensePipeline, task: str, points: Sequence[Known], **how: Any
) -> list[float]:
    """What a pipeline answers at the points, in their order; each picture is answered once.

    Raises UserError for a point outside of its picture.
    """
    answers: dict[Path, np.ndarray] = {}
    for picture in dict.fromkeys(point.picture for point in points):
        answers[picture] = pipeline(picture, task, **how).values[0, 0].cpu().numpy()
    found = []
    for point in points:
        depth = answers[point.picture]
        column, row = math.floor(point.x), math.floor(point.y)
        if not (0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]):
            raise UserError(
                f"{point.where}: ({point.x:g}, {point.y:g}) lies outside of {point.picture.name}, "
                f"which has {depth.shape[1]} x {depth.shape[0]} pixels."
            )
        found.append(float(depth[row, column]))
    return found


def fit_known(task: Depth, found: Sequence[float], points: Sequence[Known]) -> dict[str, Any]:
    """The record of a fit: "scale" and "shift" in the task's "space", their intervals, "error", the
    typical share by which a distance is off afterwards, and what it rests on.

    Raises UserError for too few points, and for points that do not tell the scale: all at one
    depth, or at depths that do not grow with the distances.
    """
    from scipy.stats import t as student  # slow to import

    if len(points) < FEWEST:
        raise UserError(f"{len(points)} known distances: give {FEWEST} or more, near and far ones.")
    answered, known = (
        task.curve(torch.tensor([*values], dtype=torch.float64)).numpy()
        for values in (found, [point.metres for point in points])
    )
    if not np.isfinite(answered).all():
        raise UserError("an answer at a known point is no number: choose other points.")
    x, y = answered - answered.mean(), known - known.mean()
    spread = float(x @ x)
    scale = float(x @ y) / spread if spread > 1e-12 * len(x) else math.nan
    off = y - scale * x
    freedom = len(points) - 2
    error = math.sqrt(float(off @ off) / freedom)
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
    wide = reach / math.sqrt(spread) if spread else math.inf
    if not scale - wide > 0:
        raise UserError(
            f"{len(points)} known distances do not tell a scale: {_said(scale, wide)} holds 0 or "
            "less. Give points at clearly different depths, and check that x counts columns and y "
            "rows of the upright picture."
        )
    middle = float(answered.mean())
    shift = float(known.mean()) - scale * middle
    aside = reach * math.sqrt(1 / len(points) + middle**2 / spread)
    metres = task.uncurve(torch.from_numpy(scale * answered + shift)).numpy()
    truth = np.array([point.metres for point in points])
    return {
        "scale": scale,
        "shift": shift,
        "space": task.space,
        "scale_interval": [scale - wide, scale + wide],
        "shift_interval": [shift - aside, shift + aside],
        "interval": f"{LEVEL:.0%} Student t",
        "error": float(np.sqrt(np.mean((metres / truth - 1) ** 2) * len(points) / freedom)),
        "points": len(points),
        "pictures": len({point.picture for point in points}),
    }


def sentence(record: Mapping[str, Any]) -> str:
    """What a record says, for people."""
    scale, shift = (
        f"{name} {record[name]:.4g} [{record[f'{name}_interval'][0]:.4g}, "
        f"{record[f'{name}_interval'][1]:.4g}]"
        for name in ("scale", "shift")
    )
    unit = "log depth" if record["space"] == "log" else record["space"]
    return (
        f"metres by {scale} and {shift} of {unit} ({record['interval']}), fitted to "
        f"{record['points']} distances in {record['pictures']} pictures; typically "
        f"{100 * record['error']:.1f} % off"
    )


def _said(scale: float, wide: float) -> str:
    if not math.isfinite(scale):
        return "all are answered with one depth, and any scale"
    return f"{scale:.3g} +- {wide:.3g}"


def _known(path: Path, number: int, row: object) -> Known:
    """A point of a line."""
    where = f"{path}:{number}"
    held = row if isinstance(row, dict) else {}
    picture = held.get("picture")
    if not isinstance(picture, str) or not picture:
        raise DataFormatError(f"{where}: 'picture' is missing, or no text.")
    values = []
    for name in COLUMNS[1:]:
        try:
            values.append(float(held[name]))
        except (KeyError, TypeError, ValueError):
            raise DataFormatError(f"{where}: {name!r} is missing, or no number.") from None
    if not all(map(math.isfinite, values)) or values[2] <= 0:
        raise DataFormatError(f"{where}: 'metres' is {values[2]:g}; give a distance above 0.")
    return Known(path.parent / picture, values[0], values[1], values[2], where)
