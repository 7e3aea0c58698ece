"""A run folder as the report sees it: whatever is there, read; whatever is missing, empty.

A run may be looked at while it works or after it died, so an unfinished last line is no error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError, UserError
from stepsight.report.sweep.folder import SweepFolder, read_sweep_folder
from stepsight.scaling.reading import read_json, read_text

Row = dict[str, Any]

_NUMBERS = ("metrics", "baselines", "ratios")  # fields of results and validation rows


@dataclass(frozen=True)
class RunFolder:
    """The contents of one run folder; see `read_run` for the files behind the fields."""

    path: Path
    config: str = ""
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    train: list[Row] = field(default_factory=list)
    val: list[Row] = field(default_factory=list)
    samples: list[Path] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    grids: list[Path] = field(default_factory=list)
    sweep: SweepFolder = field(default_factory=SweepFolder)


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises `UserError` if `path` is no folder and `DataFormatError` if a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder. Give a folder made by training, e.g. runs/x.")
    metrics = list(_json_lines(path / "metrics.jsonl"))
    return RunFolder(
        path=path,
        config=read_text(path / "config.yaml"),
        command=read_text(path / "command.txt").strip(),
        environment=read_json(path / "env.json", {}),
        train=[row for row in metrics if row.get("kind") == "train"],
        val=[_measured(row) for row in metrics if row.get("kind") == "val"],
        samples=sorted((path / "samples").glob("*.png"), key=_when),
        results=[_measured(row) for row in read_json(path / "eval" / "results.json", [])],
        grids=sorted((path / "eval").glob("grid-*.png")),
        sweep=read_sweep_folder(path / "sweep"),
    )


def series(rows: list[Row]) -> dict[tuple[str, int, int], list[Row]]:
    """Validation rows of one task by (data, nfe, members), each in order of images."""
    found: dict[tuple[str, int, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["images_seen"]):
        found.setdefault((row["data"], row["nfe"], row["members"]), []).append(row)
    return found


def _measured(row: Row) -> Row:
    """The row with NaN for the numbers that JSON could only write as null."""
    return {key: _nan(value) if key in _NUMBERS else value for key, value in row.items()}


def _nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan(one) for key, one in value.items()}
    return math.nan if value is None else value


def _json_lines(path: Path) -> Iterator[Row]:
    lines = read_text(path).splitlines()
    for i, line in enumerate(lines):
        try:
            yield json.loads(line)
        except ValueError:
            if i < len(lines) - 1:  # the last line may still be on its way to the disk
                raise DataFormatError(f"{path}:{i + 1}: not JSON. Remove the line.") from None


def _when(path: Path) -> tuple[float, str]:
    """Sorts `step-000500.png` by its step and `final.png` last."""
    digits = re.search(r"\d+", path.stem)
    return (int(digits.group()) if digits else float("inf"), path.name)
