"""A run folder as the report sees it: whatever is there, read; whatever is missing, empty.

A run may be looked at while it works or after it died, so an unfinished last line is no error.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from stepsight.errors import DataFormatError, UserError, command
from stepsight.report.sweep.folder import SweepFolder, read_sweep_folder
from stepsight.results import Result, read_results, with_nan
from stepsight.scaling.reading import read_json, read_text

Row = dict[str, Any]

LOCK = "run.lock"  # `checkpoint.lock`, which loads torch
SILENT = 60.0  # seconds after which whoever held the folder counts as gone


@dataclass(frozen=True)
class RunFolder:
    """The contents of one run folder; see `read_run` for the files behind the fields."""

    path: Path
    config: str = ""
    model: str = ""  # its name
    images: int | None = None  # to be trained on
    command: str = ""  # as it can be typed again
    environment: dict[str, Any] = field(default_factory=dict)
    train: list[Row] = field(default_factory=list)
    val: list[Row] = field(default_factory=list)
    samples: list[Path] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    sweep: SweepFolder = field(default_factory=SweepFolder)


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises `UserError` if `path` is no folder and `DataFormatError` if a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder. Give a folder made by training, e.g. runs/x.")
    rows = list(_json_lines(path / "metrics.jsonl"))
    config = read_text(path / "config.yaml")
    return RunFolder(
        path=path,
        config=config,
        model=_setting(config, "model", "name"),
        images=_setting(config, "training", "images"),
        command=_command(read_text(path / "command.txt").strip()),
        environment=read_json(path / "env.json", {}),
        train=[row for row in rows if row.get("kind") == "train"],
        val=[
            row | {key: with_nan(row[key]) for key in ("metrics", "baselines") if key in row}
            for row in rows
            if row.get("kind") == "val"
        ],
        samples=sorted((path / "samples").glob("*.png"), key=_when),
        results=read_results(path / "eval" / "results.json"),
        sweep=read_sweep_folder(path / "sweep"),
    )


def is_working(path: Path) -> bool:
    """Whether a process holds the run's folder: whoever does shows it on the lock every few
    seconds."""
    with suppress(OSError):
        return time.time() - (path / LOCK).stat().st_mtime < SILENT
    return False


def _setting(config: str, *names: str) -> Any:
    """A setting of a config.yaml; None where it has none of that name."""
    with suppress(yaml.YAMLError, KeyError, TypeError):
        return reduce(getitem, names, yaml.safe_load(config))
    return None


def _command(typed: str) -> str:
    """A command line that was recorded, as it runs here: without the folder of the program, and
    after `uv run` in a checkout."""
    program, _, rest = typed.partition(" ")
    name = Path(program).name
    if name.endswith(".py"):
        return f"{command(name.removesuffix('.py'))} {rest}".strip()
    return f"{name} {rest}".strip()


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
