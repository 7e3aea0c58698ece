"""Our own ladder, told again: parts of docs/data/ladder-depth.csv are hidden and forecast.

Three hold-outs of its 21 runs: the largest sizes, the longest runs, and the third with the largest
product of parameters and images; sixteen hidden outcomes a quantity.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecasting.asking import AVERAGE, LEVEL, Array, Points, Score, asked, forecast

LADDER = Path(__file__).parents[2] / "docs" / "data" / "ladder-depth.csv"
QUANTITIES = ("loss", "abs_rel", "delta1")  # delta1 as 1 - delta1
WAYS = ("chinchilla", AVERAGE)


def points_of(quantity: str, path: Path = LADDER) -> Points:
    """Parameters and images of every run, and what it reached."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    of = [row for row in rows if row["metric"] == ("abs_rel" if quantity == "loss" else quantity)]
    y = np.array([float(row["loss" if quantity == "loss" else "value"]) for row in of])
    x = np.array([[float(row["params_active"]), float(row["images_seen"])] for row in of])
    return Points(x, 1 - y if quantity == "delta1" else y)


def hold_outs(x: Array) -> dict[str, Array]:
    """Hidden runs, "n" each."""
    size, images = x.T
    product = size * images
    return {
        "size": size >= np.unique(size)[-2],
        "images": images >= np.unique(images)[-2],
        "size x images": product >= np.sort(product)[-(len(x) // 3)],
    }


def measured(
    ways: Sequence[str] = WAYS, quantities: Sequence[str] = QUANTITIES
) -> Iterator[dict[str, Any]]:
    """A row for every quantity, way of asking and hold-out, and one for the hold-outs together."""
    for quantity in quantities:
        points = points_of(quantity)
        for way in ways:
            total = Score()
            for name, hidden in hold_outs(points.x).items():
                score = Score()
                answer = asked(points.where(~hidden), way)
                for place, outcome in zip(points.x[hidden], points.y[hidden]):
                    expected = forecast(answer, place, LEVEL)
                    score.add(answer.verdict, expected, float(outcome))
                yield {"quantity": quantity, "way": way, "hidden": name, **_row(score)}
                total.join(score)
            yield {"quantity": quantity, "way": way, "hidden": "all", **_row(total)}


def _row(score: Score) -> dict[str, Any]:
    ends = {"lowest": min(score.error), "highest": max(score.error)}
    return score.row() | {name: round(float(np.expm1(end)), 4) for name, end in ends.items()}
