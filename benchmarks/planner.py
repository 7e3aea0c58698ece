"""The planner against what was measured: its expectations at settings that it has not seen.

    python benchmarks/planner.py RUN/sweep/sweep.csv HELD-OUT/sweep.csv [--images fresh] [--out CSV]
    python benchmarks/planner.py RUN/sweep/sweep.csv FRESH/sweep.csv --budgets 1 2 4 8 16 32

The second sweep has other settings, and is made by the same command otherwise. Each of its cells is
expected from the first sweep alone, with a 90 % interval, and then looked up. On the same images
the interval is that of the interpolation; fresh images add their own sampling and that of the
first sweep's, and settings of the first sweep are asked for too. Nothing is expected of cells
outside of its range.

With --budgets (model calls) the planner's own answers are looked up instead, for every task and
family of the first sweep: is the interval of the setting that was *chosen* what it says, after its
luck was taken out? Beside it stands the value that was measured, taken at its word. With --parts
the images of both sweeps (per_sample.csv beside the tables) are split into so many parts; what is
planned on one is looked up on the next, so that the outcomes are not all those of the same images:

    python benchmarks/planner.py RUN/sweep/sweep.csv FRESH/sweep.csv --budgets 1 2 4 8 --parts 4

--shuffles splits anew at random so many times, as the outcomes of one split are few events: an
unusual part is unusual for every setting. The second sweep may be the first. --out has a row for
every setting, that is task, family and budget.

Answers between the settings measured can be looked up only if the second sweep has them.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepsight.measures import measure
from stepsight.scaling.intervals import pooled_interval
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.images import tables_beside
from stepsight.scaling.sampling.paired import MetricTable
from stepsight.scaling.sampling.planner import Plan, plans
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


class Answer(NamedTuple):
    """What the planner chose for a budget, and what it gave on other images."""

    task: str
    metric: str
    family: str
    budget: int
    nfe: int
    members: int
    seen: float  # as measured; nan between settings
    expected: float
    lo: float
    hi: float
    measured: float  # on the other images
    inside: bool
    seen_inside: bool  # within an interval as wide about what was seen


Pair = tuple[list[Cell], list[MetricTable], list[Cell]]  # known, their images, and held out


def answers(pair: Pair, budgets: Sequence[int]) -> Iterator[Answer]:
    """Of every task and family that the budgets buy something of."""
    known, tables, held_out = pair
    outcomes = {(c.task, c.metric, c.family, c.setting): c for c in held_out}
    for task, metric in main_metrics(known).items():
        for family, cells in by_family(select(known, task, metric)).items():
            least = min(cell.total_calls for cell in cells)
            spent = [budget for budget in budgets if budget >= least]
            own = [table for table in tables if table.family == family]
            texts = [f"{budget}nfe" for budget in spent]
            for budget, best in zip(spent, plans(cells, task, texts, metric, tables=own)):
                cell = outcomes.get((task, metric, family, (best.nfe, best.members)))
                if cell is not None:
                    yield _answer(budget, best, cell)


def _answer(budget: int, best: Plan, cell: Cell) -> Answer:
    half = (best.hi - best.lo) / 2
    numbers = best.seen, best.expected, best.lo, best.hi, cell.value
    inside = best.lo <= cell.value <= best.hi, abs(cell.value - best.seen) <= half
    family = str(cell.family._replace(checkpoint=""))
    place = cell.task, cell.metric, family, budget, best.nfe, best.members
    return Answer(*place, *numbers, *inside)


def split(path: Path, parts: int, shuffle: int) -> list[tuple[list[Cell], list[MetricTable]]]:
    """The main metrics of a sweep on disjoint random parts of its images: cells, and images."""
    cells = read_sweep(path)
    main = main_metrics(cells)
    cells = [cell for cell in cells if cell.metric == main.get(cell.task)]
    tables, found = tables_beside(path, cells), []
    for part in range(parts):
        taken = [_part(table, part, parts, shuffle) for table in tables]
        found.append((list(_cells(taken, cells)), taken))
    return found


def _part(table: MetricTable, part: int, parts: int, shuffle: int) -> MetricTable:
    order = np.random.default_rng(shuffle).permutation(len(table.keys))[part::parts]
    settings = {setting: rows[order] for setting, rows in table.settings.items()}
    return replace(table, keys=[table.keys[i] for i in order], settings=settings)


def _cells(tables: Iterable[MetricTable], cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells as they are on the images of the tables."""
    whole = {(c.task, c.metric, c.family, c.setting): c for c in cells}
    for table in tables:
        for setting, rows in table.settings.items():
            known = rows[np.isfinite(rows).all(axis=1)]
            found = pooled_interval(known, table.of)
            cell = whole[table.task, table.metric, table.family, setting]
            yield replace(cell, value=found.value, lo=found.lo, hi=found.hi, images=found.n)


def _surfaces(cells: Sequence[Cell]) -> dict[tuple[str, str, Family], ResponseSurface]:
    return {
        (task, metric, family): ResponseSurface(chosen)
        for task, metric in main_metrics(cells).items()
        for family, chosen in by_family(select(cells, task, metric)).items()
    }


def _expectation(cell: Cell, expected: float, lo: float, hi: float) -> Expectation:
    place = (cell.task, cell.metric, str(cell.family), cell.nfe, cell.members)
    return Expectation(*place, expected, lo, hi, cell.value, lo <= cell.value <= hi)


class Held(NamedTuple):
    """How often the interval of what was chosen held."""

    task: str
    metric: str
    family: str
    budget: int
    answers: int
    inside: int
    seen_inside: int  # within an interval as wide about what was seen
    better: float  # by how much of the outcome the expectation was better, on average
    seen_better: float  # and what was seen


def _looked_up(
    sweep: Path, other: Path, budgets: Sequence[int], parts: int, shuffles: int
) -> Iterator[Answer]:
    for shuffle in range(shuffles):
        known, held_out = (split(path, parts, shuffle) for path in (sweep, other))
        for k, one in enumerate(known):
            yield from answers((*one, held_out[(k + 1) % parts][0]), budgets)


def _settings(found: Sequence[Answer]) -> Iterator[Held]:
    for place in dict.fromkeys(one[:4] for one in found):
        own = [one for one in found if one[:4] == place]
        promised = zip(*((one.expected, one.seen) for one in own))
        better = [statistics.mean(map(_better, promise, own)) for promise in promised]
        hits = sum(one.inside for one in own), sum(one.seen_inside for one in own)
        yield Held(*place, len(own), *hits, *better)


def _better(promised: float, one: Answer) -> float:
    """By how much a promise is better than the outcome, in logs: the mean of a ratio is above 1
    where nothing was chosen."""
    sign = 1 if measure(one.metric).higher_is_better else -1
    return sign * math.log(promised / one.measured)


def _told(found: Sequence[Answer]) -> None:
    """How many outcomes lie inside, by task and in all, and how far off expectations are."""
    for task in [*dict.fromkeys(one.task for one in found), ""]:
        own = [one for one in found if task in (one.task, "")]
        inside, naive = (sum(x) for x in zip(*((o.inside, o.seen_inside) for o in own)))
        off = [_better(one.expected, one) for one in own]
        print(f"{task or 'all'}: {inside} of {len(own)} inside, {inside / len(own):.0%}", end="; ")
        print(f"of values as measured {naive}", end="; ")
        print(f"expectations are better than outcomes by {statistics.mean(off):+.2%}")


def _print(cells: Sequence[Expectation]) -> None:
    print(f"{'task':10s}{'NFE x members':>14s}{'expected':>10s}{'90 % interval':>20s}  measured")
    for one in cells:
        interval = f"{one.lo:.4f} to {one.hi:.4f}"
        mark = "" if one.inside else "  outside"
        print(
            f"{one.task:10s}{f'{one.nfe} x {one.members}':>14s}{one.expected:10.4f}{interval:>20s}"
            f"{one.measured:10.4f}{mark}"
        )
    if not cells:
        return
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
    parser.add_argument("--shuffles", type=int, default=1, help="random splits into parts")
    parser.add_argument("--parts", type=int, default=1, help="of the images, with --budgets")
    parser.add_argument("--out", type=Path, help="CSV of every cell")
    args = parser.parse_args()
    cells: Sequence[Held] | Sequence[Expectation]
    if args.budgets:
        sweeps = args.sweep, args.held_out
        found = list(_looked_up(*sweeps, args.budgets, args.parts, args.shuffles))
        cells = list(_settings(found))
        _told(found)
    else:
        known, held_out = read_sweep(args.sweep), read_sweep(args.held_out)
        cells = expectations(known, held_out, args.images == "fresh")
        _print(cells)
    if not cells:
        parser.error("no held-out cell lies within the range of the sweep and matches its columns")
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(cells[0]._fields)
            writer.writerows(cells)


if __name__ == "__main__":
    main()
