"""The folder of a sweep as the pages see it: what is there, read; what is missing, empty."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stepsight.evaluation.reading import read_json, read_text
from stepsight.scaling.sampling.dials import by_family
from stepsight.scaling.sampling.sweeps import Cell, Family, main_of, read_sweep


@dataclass(frozen=True)
class SweepFolder:
    """The contents of a sweep's folder; see `read_sweep_folder` for the files behind the fields."""

    path: Path = Path()
    cells: list[Cell] = field(default_factory=list)
    fits: dict[str, Any] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    strategies: list[dict[str, str]] = field(default_factory=list)

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks whose main metric could be measured, in order of appearance."""
        return [task for task in dict.fromkeys(cell.task for cell in self.cells) if self.main(task)]

    def main(self, task: str) -> list[Cell]:
        """The cells of a task's main metric that hold a number."""
        return self.of(task, main_of(self.cells, task))

    def of(self, task: str, metric: str) -> list[Cell]:
        """The cells of one metric of a task that hold a number."""
        found = [cell for cell in self.cells if (cell.task, cell.metric) == (task, metric)]
        return [cell for cell in found if math.isfinite(cell.value)]

    def pictures(self, kind: str) -> list[Path]:
        """The pictures of a kind that are there, e.g. film-<task>.png, by name."""
        return sorted(self.path.glob(f"{kind}-*.png"))


def read_sweep_folder(path: Path) -> SweepFolder:
    """Read what a sweep left in a folder.

    Raises `DataFormatError` if a file in it is damaged.
    """
    table = path / "sweep.csv"
    return SweepFolder(
        path=path,
        cells=read_sweep(table) if table.is_file() else [],
        fits=read_json(path / "fit.json", {}),
        claims=read_json(path / "claims.json", []),
        strategies=list(csv.DictReader(read_text(path / "strategies.csv").splitlines())),
    )


def fullest(cells: Sequence[Cell]) -> tuple[Family, list[Cell]]:
    """Of cells that differ in more than NFE and members the family with the most of them."""
    return max(by_family(cells).items(), key=lambda item: len(item[1]))


def differing(families: Iterable[Family]) -> dict[Family, str]:
    """What tells each family from the others: the parts in which not all of them agree."""
    families = list(families)
    unlike = [len(set(parts)) > 1 for parts in zip(*families)]
    return {
        one: ", ".join(part for part, differs in zip(one, unlike) if differs and part)
        for one in families
    }
