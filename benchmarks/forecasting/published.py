"""Published tables, told again by rolling origins: later points are hidden and forecast.

The tables are public numbers in a folder of their own (`--published`). Of each curve the points
beyond an origin are hidden, at two origins or more, and forecast by the average of forms at 90 %;
of loss-to-loss relations the six runs at 20.7 times the compute, at 95 %.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecasting.asking import (
    AVERAGE,
    LEVEL,
    Array,
    Points,
    Score,
    asked,
    forecast,
    hidden,
)
from stepsight.scaling.loss_to_loss.pairs import join
from stepsight.scaling.loss_to_loss.relation import Floor, relate

Rows = Sequence[dict[str, str]]
ERRORS = ("absrel", "delta1_error")
OUTLIERS = 5  # highest losses of Hoffmann's runs, left out as Besiroglu et al. do
LATER = (1 / 2, 3 / 4)  # of the budgets or points, which lie before an origin
PAIRS_LEVEL = 0.95


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for every table; `folder` has their files."""
    tables = {
        "seed: fine-tuning, each model": _finetuning,
        "seed: fine-tuning, over models": _over_models,
        "seed: pretraining, each model": _pretraining,
        "seed: steps": lambda at: _test_time(at, "steps", "denoising_steps"),
        "seed: members": lambda at: _test_time(at, "ensemble", "ensemble_size"),
        "Hoffmann's runs": _hoffmann,
        "isoFLOP sets": _isoflops,
        "six corpora": _sweep,
        "six corpora, to 20.7 times the compute": _sweep_far,
    }
    for name, scores in tables.items():
        total = Score()
        for score in scores(folder):
            total.join(score)
        yield {"table": name, "level": LEVEL, **total.row()}
    yield pairs(folder)


def rows_of(folder: Path, name: str) -> Rows:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: Rows, *names: str) -> Array:
    """ "n d"."""
    return np.array([[float(row[name]) for name in names] for row in rows])


def by(rows: Rows, name: str) -> Iterator[Rows]:
    for value in dict.fromkeys(row[name] for row in rows):
        yield [row for row in rows if row[name] == value]


def _rolled(points: Points, along: Array, origins: Sequence[float]) -> Iterator[Score]:
    for origin in origins:
        yield hidden(points, along, origin, AVERAGE)


def _curves(rows: Rows, x: str, names: Sequence[str], origins: Sequence[int]) -> Iterator[Score]:
    """A curve of each of several errors, after each of so many first points."""
    places = column(rows, x)
    for name in names:
        points = Points(places, column(rows, name)[:, 0])
        ordered = np.sort(places[:, 0])
        yield from _rolled(points, places[:, 0], [ordered[kept - 1] for kept in origins])


def _finetuning(folder: Path) -> Iterator[Score]:
    for rows in by(rows_of(folder, "seed_finetune_depth_points.csv"), "model"):
        yield from _curves(rows, "macs_as_plotted", ERRORS, (4, len(rows) - 1))


def _over_models(folder: Path) -> Iterator[Score]:
    every = by(rows_of(folder, "seed_finetune_depth_points.csv"), "model")
    yield from _curves([rows[-1] for rows in every], "macs_as_plotted", ERRORS, (4, 5))


def _pretraining(folder: Path) -> Iterator[Score]:
    for rows in by(rows_of(folder, "seed_pretrain_loss_curves.csv"), "model"):
        kept = [int(share * len(rows)) for share in LATER]
        yield from _curves(rows, "macs_as_plotted", ("loss",), kept)


def _test_time(folder: Path, name: str, x: str) -> Iterator[Score]:
    for rows in by(rows_of(folder, f"seed_test_time_{name}.csv"), "model"):
        yield from _curves(rows, x, ERRORS, (4, len(rows) - 1))


def _surface(rows: Rows, budget: str, y: str, origins: Sequence[float] = LATER) -> Iterator[Score]:
    """Loss over parameters and tokens; the later budgets are hidden."""
    budgets = column(rows, budget)[:, 0]
    ordered = np.unique(budgets)
    ends = [ordered[int(share * len(ordered)) - 1] for share in origins]
    yield from _rolled(
        Points(column(rows, "params", "tokens"), column(rows, y)[:, 0]), budgets, ends
    )


def _hoffmann(folder: Path) -> Iterator[Score]:
    rows = sorted(
        rows_of(folder, "chinchilla_epoch_svg_points.csv"), key=lambda row: float(row["loss"])
    )
    yield from _surface(rows[:-OUTLIERS], "flop", "loss")


def _isoflops(folder: Path) -> Iterator[Score]:
    for rows in by(rows_of(folder, "isoflops_public_collection.csv"), "experiment"):
        yield from _surface(rows, "budget", "loss")


def _sweep(folder: Path) -> Iterator[Score]:
    for rows in by(rows_of(folder, "l2l_sweep.csv"), "data"):
        yield from _surface(rows, "iso_flop", "val_loss")


def _sweep_far(folder: Path) -> Iterator[Score]:
    larger = {row["data"]: row for row in rows_of(folder, "l2l_extrapolation_1e21.csv")}
    for rows in by(rows_of(folder, "l2l_sweep.csv"), "data"):
        x, far = column(rows, "params", "tokens"), [larger[rows[0]["data"]]]
        answer = asked(Points(x, column(rows, "val_loss")[:, 0]), AVERAGE)
        reach = float(far[0]["iso_flop"]) / float(column(rows, "iso_flop").max())
        score = Score(reach=reach)
        expected = forecast(answer, column(far, "params", "tokens")[0])
        score.add(answer.verdict, expected, float(far[0]["val_loss"]))
        yield score


def pairs(folder: Path) -> dict[str, Any]:
    """The 30 relations of two corpora, with the floors of their published laws."""
    sweep = {rows[0]["data"]: rows for rows in by(rows_of(folder, "l2l_sweep.csv"), "data")}
    larger = {row["data"]: row for row in rows_of(folder, "l2l_extrapolation_1e21.csv")}
    floors = {
        row["data"]: Floor(float(row["E"]), "law")
        for row in rows_of(folder, "l2l_published_scaling_fits.csv")
        if (row["loss_name"], row["kaplan_form"]) == ("val_loss", "True")
    }
    score = Score()
    for pair in rows_of(folder, "l2l_train_to_train_recomputed.csv"):
        ends = pair["data0"], pair["data1"]
        places = join(*([row["tokens"] for row in sweep[data]] for data in ends))
        x, y = (
            [float(sweep[data][place[side]]["val_loss"]) for place in places]
            for side, data in enumerate(ends)
        )
        lower, upper = (floors[data] for data in ends)
        found = relate(x, y, floor_x=lower, floor_y=upper, level=PAIRS_LEVEL)
        at, outcome = (float(larger[data]["val_loss"]) for data in ends)
        budgets = column(sweep[ends[0]], "iso_flop")
        score.reach = float(larger[ends[0]]["iso_flop"]) / float(budgets.max())
        score.add(found.verdict, found.forecast(at), outcome)
    off = np.abs(np.expm1(score.error))
    row = {"table": "30 loss-to-loss pairs", "level": PAIRS_LEVEL, **score.row()}
    return row | {"mean_error": float(off.mean()), "worst_error": float(off.max())}
