"""The planner against what was measured: its expectations at settings that it has not seen.

    python benchmarks/planner.py RUN/sweep/sweep.csv HELD-OUT/sweep.csv [--images fresh] [--out CSV]
    python benchmarks/planner.py RUN/sweep/sweep.csv FRESH/sweep.csv --budgets 1 2 4 8 16 32

The second sweep has other settings, and is made by the same command otherwise. Each of its cells is
expected from the first sweep alone, with a 90 % interval, and then looked up. On the same images
the interval is that of the interpolation; fresh images add their own sampling and that of the
first sweep's, and settings of the first sweep are asked for too. Nothing is expected of cells
outside of its range.

With --budgets (model calls), what the planner answers for each of them is looked up instead. It
picks the best of many settings, whose luck it takes for merit, so that its expectations are too
good by some part of the noise of one setting; this measures how much. Answers between the settings
measured can be looked up only if the second sweep has them.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stepsight.measures import measure
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.planner import plan
from stepsight.scaling.sampling.response_surface import ResponseSurface
from stepsight.scaling.sampling.sweeps import Cell, Family, main_metrics, read_sweep, select


class Expectation(NamedTuple):
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


def expectations(known: Sequence[Cell], held_out: Iterable[Cell], fresh: bool) -> list[Expectation]:
    """Expected and measured, in the main metric of every task; what is out of range is left out."""
    surfaces, expected = _surfaces(known), []
    for cell in held_out:
        surface = surfaces.get((cell.task, cell.metric, cell.family))
        if surface is None or (not fresh and cell.setting in surface.errors):
            continue
        if choice := surface.choice(cell.setting, fresh=fresh):
            expected.append(_expectation(cell, choice.expected, choice.lo, choice.hi))
    return expected


def planned(
    known: Sequence[Cell], held_out: Iterable[Cell], budgets: Sequence[int]
) -> list[Expectation]:
    """The planner's answers for every task and budget, beside what fresh images give."""
    looked_up = {(c.task, c.metric, c.sampler, c.setting): c for c in held_out}
    expected = []
    for task, metric in main_metrics(known).items():
        for budget in budgets:
            best = plan(known, task, f"{budget}nfe")
            cell = looked_up.get((task, metric, best.sampler, (best.nfe, best.members)))
            if cell is not None:
                expected.append(_expectation(cell, best.expected, best.lo, best.hi))
    return expected


def _surfaces(cells: Sequence[Cell]) -> dict[tuple[str, str, Family], ResponseSurface]:
    return {
        (task, metric, family): ResponseSurface(chosen)
        for task, metric in main_metrics(cells).items()
        for family, chosen in by_family(select(cells, task, metric)).items()
    }


def _expectation(cell: Cell, expected: float, lo: float, hi: float) -> Expectation:
    place = (cell.task, cell.metric, str(cell.family), cell.nfe, cell.members)
    return Expectation(*place, expected, lo, hi, cell.value, lo <= cell.value <= hi)


def _print(cells: Sequence[Expectation]) -> None:
    print(f"{'task':10s}{'NFE x members':>14s}{'expected':>10s}{'90 % interval':>20s}  measured")
    for one in cells:
        interval = f"{one.lo:.4f} to {one.hi:.4f}"
        mark = "" if one.inside else "  outside"
        print(
            f"{one.task:10s}{f'{one.nfe} x {one.members}':>14s}{one.expected:10.4f}{interval:>20s}"
            f"{one.measured:10.4f}{mark}"
        )
    for task in dict.fromkeys(one.task for one in cells):
        inside = [one.inside for one in cells if one.task == task]
        print(f"{task}: {sum(inside)} of {len(inside)} inside")
    better = [measure(one.metric).higher_is_better for one in cells]
    signs = [1 if higher else -1 for higher in better]
    off = [sign * (one.expected / one.measured - 1) for sign, one in zip(signs, cells)]
    print(f"expectations are better than the outcome by {statistics.mean(off):+.2%} on average")
    share = sum(one.inside for one in cells) / len(cells)
    print(f"all: {sum(one.inside for one in cells)} of {len(cells)} inside, {share:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The planner against held-out settings.")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--images", choices=("same", "fresh"), default="fresh", help="held out")
    parser.add_argument("--budgets", type=int, nargs="+", help="look up the planner's answers")
    parser.add_argument("--out", type=Path, help="CSV of every cell")
    args = parser.parse_args()
    known, held_out = read_sweep(args.sweep), read_sweep(args.held_out)
    if args.budgets:
        cells = planned(known, held_out, args.budgets)
    else:
        cells = expectations(known, held_out, args.images == "fresh")
    if not cells:
        parser.error("no held-out cell lies within the range of the sweep and matches its columns")
    _print(cells)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Expectation._fields)
            writer.writerows(cells)


if __name__ == "__main__":
    main()
