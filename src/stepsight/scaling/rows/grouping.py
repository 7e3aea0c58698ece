"""Which rows of a table are checkpoints of one run.

They share its luck, so that intervals which take them as independent are too narrow: with runs that
differ by 3 %, nominal 90 % intervals hold half of the time. A column that is called a run says it.
Where columns only look like it, rows are grouped as well, because the error of grouping rows that
are independent is a wide interval; and it is said. Where no column tells runs apart, so is that.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from stepsight.scaling.rows.curve import CurveRows

NO_GROUPS = "none"  # said of rows that are all independent
RUN = ("run", "runs", "run_id", "run_name", "trial")
IDENTITY = ("model", "seed", "config", "name", "arch", "architecture", "id", "backbone", "fold")
SIZE = re.compile(r"param|width|layer|d_model")  # the same throughout a run
APART = ("metric", "task", "protocol", "dataset", "data", "corpus", "split", "benchmark")
FEWEST = 3  # rows of a group that looks like a run, and runs that say how runs scatter
TRIED = 6  # columns whose combinations are looked at
Texts = Mapping[str, tuple[str, ...]]  # columns as they are written, "n" each


def run_column(texts: Texts) -> str | None:
    """The column that is called a run."""
    named = {name.strip().lower().replace(" ", "_"): name for name in texts}
    return next((named[name] for name in RUN if name in named), None)


def grouped(rows: CurveRows, columns: Texts) -> CurveRows:
    """The rows with `columns` together as the names of their runs, and a note what that means."""
    runs = tuple(" ".join(cells) for cells in zip(*columns.values()))
    count, of = len(set(runs)), " and ".join(columns)
    told = f"rows are grouped by {of}, {count} runs of {_sizes(runs)} rows: "
    told += (
        "resamples draw whole runs"
        if count >= FEWEST
        else f"fewer than {FEWEST} do not say how runs scatter, and resamples draw rows"
    )
    return replace(rows, runs=runs).noting(*[told] * (count < len(runs)))


def by_hint(rows: CurveRows) -> CurveRows:
    """The rows with the runs that their columns look like, or a note that none are known."""
    independent = f"say --groups {NO_GROUPS} if they are independent"
    if alike := _alike(rows):
        runs = tuple(" ".join(cells) for cells in zip(*(rows.texts[name] for name in alike)))
        return replace(rows, runs=runs).noting(
            f"{len(set(runs))} groups of {_sizes(runs)} rows that share {' and '.join(alike)} look "
            f"like checkpoints of one run each, and are taken as such (--groups "
            f"{','.join(alike)}): {independent}"
        )
    if starts := _restarts(rows):
        return rows.noting(
            f"{next(iter(rows.x))} starts again at {rows.called(starts)}: checkpoints of several "
            "runs? Rows are taken as independent, and intervals are too narrow if they are not: "
            f"name a column of runs with --groups, or {independent}"
        )
    return rows


def mixed(rows: CurveRows) -> list[str]:
    """What suggests that rows do not belong to one curve, a sentence a column."""
    notes = []
    for name, cells in rows.texts.items():
        values = sorted(set(cells))
        if name.strip().lower() in APART and len(values) > 1:
            listed = ", ".join([*values[:4], *["..."] * (len(values) > 4)])
            notes.append(
                f"{name} holds {len(values)} values ({listed}), and rows of different ones rarely "
                f"share a law: choose one with --where '{name}={values[0]}'"
            )
    return notes


def _alike(rows: CurveRows) -> tuple[str, ...]:
    """The columns by which most groups look like runs; () where none do. Columns that say what a
    run is, such as model and seed, count together; any other one only where those tell nothing."""
    telling = {
        name: name.strip().lower() in IDENTITY
        for name, cells in rows.texts.items()
        if 1 < len(set(cells)) <= len(rows.y) / 2 and name.strip().lower() not in APART
    }
    identity = [name for name, known in telling.items() if known][:TRIED]
    together = [
        names for size in range(1, len(identity) + 1) for names in combinations(identity, size)
    ]
    others = [
        (name,)
        for name, known in telling.items()
        if not known and not all(map(_numeric, rows.texts[name]))
    ]
    return _finest(rows, together) or _finest(rows, others)


def _finest(rows: CurveRows, offered: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Of those by which groups look like runs, the one of most groups; of several, that whose
    groups stand together."""
    best, most = (), (0, 0)
    for names in offered:
        labels = list(zip(*(rows.texts[name] for name in names)))
        changes = sum(one != other for one, other in zip(labels, labels[1:]))
        score = len(set(labels)), -changes
        if score > most and _like_runs(rows, labels):
            best, most = names, score
    return best


def _like_runs(rows: CurveRows, labels: Sequence[Hashable]) -> bool:
    """Whether in most groups exactly one input grows and no size changes."""
    sizes = [np.array(cells) for name, cells in rows.texts.items() if SIZE.search(name.lower())]
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        groups[label].append(place)
    whole = 0
    for places in groups.values():
        distinct = [len(np.unique(column[places])) for column in rows.x.values()]
        grows = sorted(distinct)[:-1] == [1] * (len(distinct) - 1) and max(distinct) == len(places)
        fixed = all(len(set(column[places])) == 1 for column in sizes)
        whole += len(places) * (len(places) >= FEWEST and grows and fixed)
    return len(groups) > 1 and whole > len(labels) / 2


def _restarts(rows: CurveRows) -> list[int]:
    """Where the only input, which grows otherwise, starts again; [] for any other order."""
    (x, *others) = rows.x.values()
    if others:
        return []
    starts = [0, *(np.flatnonzero(np.diff(x) <= 0) + 1).tolist()]
    lengths = np.diff([*starts, len(x)])
    return starts if len(starts) > 1 and lengths.min() >= FEWEST else []


def _sizes(labels: Sequence[Hashable]) -> str:
    counts = [labels.count(label) for label in set(labels)]
    lo, hi = min(counts), max(counts)
    return f"{lo}" if lo == hi else f"{lo} to {hi}"


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
