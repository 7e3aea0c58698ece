"""A run folder as the report sees it: whatever is there, read; whatever is missing, empty.

A run may be looked at while it works or after it died, so an unfinished last line is no error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError, UserError
from stepsight.report.sweep.folder import SweepFolder, read_sweep_folder
from stepsight.results import Result, read_results, with_nan
from stepsight.scaling.reading import read_json, read_text

Row = dict[str, Any]


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
    results: list[Result] = field(default_factory=list)
    grids: list[Path] = field(default_factory=list)
    sweep: SweepFolder = field(default_factory=SweepFolder)


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises `UserError` if `path` is no folder and `DataFormatError` if a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder. Give a folder made by training, e.g. runs/x.")
    rows = list(_json_lines(path / "metrics.jsonl"))
    return RunFolder(
        path=path,
        config=read_text(path / "config.yaml"),
        command=read_text(path / "command.txt").strip(),
        environment=read_json(path / "env.json", {}),
        train=[row for row in rows if row.get("kind") == "train"],
        val=[
            row | {key: with_nan(row[key]) for key in ("metrics", "baselines") if key in row}
            for row in rows
            if row.get("kind") == "val"
        ],
        samples=sorted((path / "samples").glob("*.png"), key=_when),
        results=read_results(path / "eval" / "results.json"),
        grids=sorted((path / "eval").glob("grid-*.png")),
        sweep=read_sweep_folder(path / "sweep"),
    )


def by(rows: Iterable[Any], *names: str) -> list[tuple[list[Any], list[Any]]]:
    """The rows in groups that agree in these columns or attributes, each with what they agree in;
    in order of appearance."""

    def values(row: Any) -> list[Any]:
        return [row.get(n) if isinstance(row, Mapping) else getattr(row, n) for n in names]

    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(repr(values(row)), []).append(row)
    return [(values(rows[0]), rows) for rows in groups.values()]


def validation_lines(rows: Iterable[Row]) -> list[tuple[list[Any], list[Row]]]:
    """Validation rows by (task, data, nfe, members), each in order of images."""
    ordered = sorted(rows, key=lambda row: row["images_seen"])
    return by(ordered, "task", "data", "nfe", "members")


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
