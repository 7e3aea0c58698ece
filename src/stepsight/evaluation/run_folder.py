"""A run folder as the report sees it: whatever is there, read; whatever is missing, empty.

A run may be looked at while it works or after it died, so an unfinished last line is no error.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError, UserError
from stepsight.measures import main_metric

Row = dict[str, Any]

_NUMBERS = ("metrics", "baselines", "ratios")  # fields of results and validation rows
_TEXT_COLUMNS = ("task", "sampler", "spacing", "schedule", "metric")


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
    sweep: list[Row] = field(default_factory=list)
    fits: dict[str, Any] = field(default_factory=dict)
    claims: list[Row] = field(default_factory=list)

    def sweep_of(self, task: str) -> list[Row]:
        """The sweep's rows for the main metric of `task` that could be measured."""
        rows = [r for r in self.sweep if r["task"] == task and not math.isnan(r["value"])]
        metric = main_metric(task, [row["metric"] for row in rows])
        return [row for row in rows if row["metric"] == metric]

    def swept_tasks(self) -> list[str]:
        """Tasks that `sweep_of` has rows for, in order of appearance."""
        return [t for t in dict.fromkeys(row["task"] for row in self.sweep) if self.sweep_of(t)]


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises `UserError` if `path` is no folder and `DataFormatError` if a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder. Give a folder made by training, e.g. runs/x.")
    metrics = list(_json_lines(path / "metrics.jsonl"))
    return RunFolder(
        path=path,
        config=_text(path / "config.yaml"),
        command=_text(path / "command.txt").strip(),
        environment=_json(path / "env.json", {}),
        train=[row for row in metrics if row.get("kind") == "train"],
        val=[_measured(row) for row in metrics if row.get("kind") == "val"],
        samples=sorted((path / "samples").glob("*.png"), key=_when),
        results=[_measured(row) for row in _json(path / "eval" / "results.json", [])],
        grids=sorted((path / "eval").glob("grid-*.png")),
        sweep=list(_table(path / "sweep" / "sweep.csv")),
        fits=_json(path / "sweep" / "fit.json", {}),
        claims=_json(path / "sweep" / "claims.json", []),
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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path, absent: Any) -> Any:
    if not path.is_file():
        return absent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFormatError(
            f"{path}: not JSON ({error}). Run the step that writes it again."
        ) from None
    if not isinstance(content, type(absent)):
        raise DataFormatError(f"{path}: expected a JSON {type(absent).__name__}. Write it again.")
    return content


def _json_lines(path: Path) -> Iterator[Row]:
    lines = _text(path).splitlines()
    for i, line in enumerate(lines):
        try:
            yield json.loads(line)
        except ValueError:
            if i < len(lines) - 1:  # the last line may still be on its way to the disk
                raise DataFormatError(f"{path}:{i + 1}: not JSON. Remove the line.") from None


def _table(path: Path) -> Iterator[Row]:
    """Rows of a CSV: names as text, everything else as floats (empty: NaN)."""
    for row in csv.DictReader(_text(path).splitlines()):
        if None in row.values():  # fewer cells than columns: still on its way to the disk
            continue
        try:
            yield {k: v if k in _TEXT_COLUMNS else float(v or "nan") for k, v in row.items()}
        except ValueError as error:
            raise DataFormatError(f"{path}: {error} in {row}. Remove the row.") from None


def _when(path: Path) -> tuple[float, str]:
    """Sorts `step-000500.png` by its step and `final.png` last."""
    digits = re.search(r"\d+", path.stem)
    return (int(digits.group()) if digits else float("inf"), path.name)
