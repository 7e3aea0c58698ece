"""The planner against what was measured: its expectations at settings that it has not seen.

    python benchmarks/planner.py RUN/sweep/sweep.csv HELD-OUT/sweep.csv [--images fresh] [--out CSV]

The second sweep has other settings, and is made by the same command otherwise. Each of its cells is
expected from the first sweep alone, with a 90 % interval, and then looked up. On the same images
the interval is that of the interpolation; fresh images add their own sampling and that of the
first sweep's, and settings of the first sweep are asked for too. Nothing is expected of cells
outside of its range.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stepsight.scaling.dials import by_family
from stepsight.scaling.landscape import Landscape
from stepsight.scaling.sweeps import Cell, Family, main_metrics, read_sweep, select


class Answer(NamedTuple):
    """One held-out cell."""

    task: str
    metric: str
    family: str
    nfe: int
    members: int
    expected: float
    lo: float
    hi: float
    measured: float
    inside: bool


def answers(known: Sequence[Cell], held_out: Iterable[Cell], fresh: bool) -> list[Answer]:
    """Expected and found, for the main metric of every task; what is out of range is left out."""
    landscapes = _landscapes(known)
    found = []
    for cell in held_out:
        land = landscapes.get((cell.task, cell.metric, cell.family))
        if land is None or (not fresh and cell.setting in land.errors):
            continue
        if choice := land.choice(cell.setting, fresh=fresh):
            found.append(_answer(cell, choice.expected, choice.lo, choice.hi))
    return found


def _landscapes(cells: Sequence[Cell]) -> dict[tuple[str, str, Family], Landscape]:
    return {
        (task, metric, family): Landscape(own)
        for task, metric in main_metrics(cells).items()
        for family, own in by_family(select(cells, task, metric)).items()
    }


def _answer(cell: Cell, expected: float, lo: float, hi: float) -> Answer:
    place = (cell.task, cell.metric, str(cell.family), cell.nfe, cell.members)
    return Answer(*place, expected, lo, hi, cell.value, lo <= cell.value <= hi)


def _print(found: Sequence[Answer]) -> None:
    print(f"{'task':10s}{'NFE x members':>14s}{'expected':>10s}{'90 % interval':>20s}  measured")
    for one in found:
        interval = f"{one.lo:.4f} to {one.hi:.4f}"
        mark = "" if one.inside else "  outside"
        print(
            f"{one.task:10s}{f'{one.nfe} x {one.members}':>14s}{one.expected:10.4f}{interval:>20s}"
            f"{one.measured:10.4f}{mark}"
        )
    for task in dict.fromkeys(one.task for one in found):
        own = [one.inside for one in found if one.task == task]
        print(f"{task}: {sum(own)} of {len(own)} inside")
    share = sum(one.inside for one in found) / len(found)
    print(f"all: {sum(one.inside for one in found)} of {len(found)} inside, {share:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The planner against held-out settings.")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--images", choices=("same", "fresh"), default="fresh", help="held out")
    parser.add_argument("--out", type=Path, help="CSV of every cell")
    door = parser.parse_args()
    found = answers(read_sweep(door.sweep), read_sweep(door.held_out), door.images == "fresh")
    if not found:
        parser.error("no held-out cell lies within the range of the sweep and matches its columns")
    _print(found)
    if door.out:
        with door.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Answer._fields)
            writer.writerows(found)


if __name__ == "__main__":
    main()
