"""The folder of a sweep as the pages see it: what is there, read; what is missing, empty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError
from stepsight.results import with_nan
from stepsight.scaling.reading import read_json, read_table
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.claims import Claim
from stepsight.scaling.sampling.frontier import FrontierCell, frontier
from stepsight.scaling.sampling.images import tables_beside
from stepsight.scaling.sampling.paired import FamilySetting, MetricTable
from stepsight.scaling.sampling.sweeps import Cell, Family, differing, main_of, read_sweep


@dataclass(frozen=True)
class SweepFolder:
    """The contents of a sweep's folder; see `read_sweep_folder` for the files behind the fields."""

    path: Path = Path()
    cells: list[Cell] = field(default_factory=list)
    fits: dict[str, Any] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    outdated: bool = False  # whether an earlier version made the claims, which are left out
    fronts: dict[str, Any] = field(default_factory=dict)
    strategies: list[dict[str, str]] = field(default_factory=list)

    @cached_property
    def tables(self) -> list[MetricTable]:
        """The images behind the main metrics, where they lie beside the table."""
        main = [cell for task in self.tasks for cell in self.main(task)]
        return tables_beside(self.path / "sweep.csv", main)

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks whose main metric could be measured, in order of appearance."""
        return [task for task in dict.fromkeys(cell.task for cell in self.cells) if self.main(task)]

    def main(self, task: str) -> list[Cell]:
        """The cells of a task's main metric that hold a number."""
        return self.of(task, main_of(self.cells, task))

    def of(self, task: str, metric: str) -> list[Cell]:
        """The cells of one metric of a task that hold a number."""
        cells = (cell for cell in self.cells if (cell.task, cell.metric) == (task, metric))
        return [cell for cell in cells if math.isfinite(cell.value)]

    def frontier(self, task: str) -> list[FrontierCell]:
        """The frontier of a task's main metric by model calls; the intervals of its gains are
        paired where the sweep left such, which needs the images and not only the table."""
        points = frontier(self.cells, task, metric=main_of(self.cells, task))
        rows = self.fronts.get(task, {}).get("points", [])
        places = [FamilySetting(Family.of(row), row["nfe"], row["members"]) for row in rows]
        gains = dict(zip(zip(places, places[1:]), rows[1:]))
        for i, (before, point) in enumerate(zip(points, points[1:]), start=1):
            gain = gains.get((before.place, point.place), {})
            lo, hi = (with_nan(gain.get(end)) for end in ("gain_lo", "gain_hi"))
            if math.isfinite(lo) and gain.get("paired", True):  # early sweeps wrote no others
                points[i] = replace(point, gain_lo=lo, gain_hi=hi, paired=True)
        return points


def read_sweep_folder(path: Path) -> SweepFolder:
    """Read what a sweep left in a folder.

    Raises `DataFormatError` if a file in it is damaged.
    """
    table, claims = path / "sweep.csv", read_json(path / "claims.json", [])
    tried = path / "strategies.csv"
    outdated = any(isinstance(claim, dict) and "given" not in claim for claim in claims)
    return SweepFolder(
        path=path,
        cells=read_sweep(table) if table.is_file() else [],
        fits=read_json(path / "fit.json", {}),
        claims=[] if outdated else _claims(path / "claims.json", claims),
        outdated=outdated,
        fronts=read_json(path / "frontier.json", {}),
        strategies=list(read_table(tried).numbered.values()) if tried.is_file() else [],
    )


def _claims(path: Path, rows: Sequence[Any]) -> list[Claim]:
    try:
        return [Claim.of(row) for row in rows]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: damaged ({error!r}). Sweep again.") from None


def told_apart(families: Iterable[Family]) -> dict[Family, str]:
    """What tells each family from the others (`differing`), a checkpoint by its last name if that
    is enough."""
    families = list(families)
    short = {one: one._replace(checkpoint=Path(one.checkpoint).name) for one in families}
    if len(set(short.values())) < len(set(families)):
        short = {one: one for one in families}
    names = differing(short.values())
    return {one: names[short[one]] for one in families}


def fullest(cells: Sequence[Cell]) -> tuple[Family, list[Cell]]:
    """Of cells that differ in more than NFE and members the family with the most of them."""
    return max(by_family(cells).items(), key=lambda item: len(item[1]))
