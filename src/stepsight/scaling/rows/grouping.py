"""Which rows of a table are checkpoints of one run.

They share its luck, so that intervals which take them as independent are too narrow. A column that
is called a run says it. Where only the structure of the table suggests it, nothing is decided: the
suspicion is said, with the column that would settle it.
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
RUN = ("run", "runs", "run_id", "run_name", "experiment", "trial", "job")
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


def suspicions(rows: CurveRows, independent: bool = False) -> list[str]:
    """What suggests that rows do not belong to one curve, or, unless they are known to be
    `independent` or of which run they are, that they are checkpoints of a few."""
    notes = []
    for name, cells in rows.texts.items():
        values = sorted(set(cells))
        if name.strip().lower() in APART and len(values) > 1:
            listed = ", ".join([*values[:4], *["..."] * (len(values) > 4)])
            notes.append(
                f"{name} holds {len(values)} values ({listed}), and rows of different ones rarely "
                f"share a law: choose one with --where '{name}={values[0]}'"
            )
    if independent or rows.runs is not None:
        return notes
    about = "Intervals take rows as independent, and are too narrow if so: {} --groups " + NO_GROUPS
    if alike := _alike(rows):
        labels = list(zip(*(rows.texts[name] for name in alike)))
        groups = f"{len(set(labels))} groups of {_sizes(labels)} rows"
        why = f"{groups} that share {' and '.join(alike)} look like checkpoints of one run each. "
        notes.append(why + about.format(f"say --groups {','.join(alike)}, or"))
    elif starts := _restarts(rows):
        name = next(iter(rows.x))
        why = f"{name} starts again at {rows.called(starts)}: checkpoints of several runs? "
        notes.append(why + about.format("name a column of runs with --groups, or say"))
    return notes


def _alike(rows: CurveRows) -> tuple[str, ...]:
    """The columns by which most groups look like runs; () where none do."""
    n = len(rows.y)
    telling = [
        name
        for name, cells in rows.texts.items()
        if 1 < len(set(cells)) <= n / 2
        and name.strip().lower() not in APART
        and (name.strip().lower() in IDENTITY or not all(map(_numeric, cells)))
    ][:TRIED]
    best, most = (), (0, 0)
    for size in range(1, len(telling) + 1):
        for names in combinations(telling, size):
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
