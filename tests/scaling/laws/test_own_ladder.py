"""Intervals on our own ladder (docs/data/ladder-depth.csv): its upper ends, hidden and forecast.

Depth on procedural worlds, 20 runs over parameters and images. Hidden are the largest size, the
largest amount of images, and the nine runs of the largest parameters x images, of the loss, AbsRel
and 1 - delta1 each: sixteen points.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stepsight.scaling.laws.averaging import average
from stepsight.scaling.laws.fits import compare

LADDER = Path(__file__).parents[3] / "docs" / "data" / "ladder-depth.csv"
LARGEST = 1_400_000  # parameters; the run above was made after the ladder


def table(metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and images, "n 2", and errors."""
    with LADDER.open() as lines:
        rows = [row for row in csv.DictReader(lines) if int(row["params_active"]) < LARGEST]
    if metric == "loss":
        found = {(r["params_active"], r["images_seen"]): float(r["loss"]) for r in rows}
    else:
        of_one = [r for r in rows if r["metric"] == metric]
        found = {(r["params_active"], r["images_seen"]): float(r["value"]) for r in of_one}
    y = np.array([*found.values()])
    return np.array([*found], dtype=float), 1 - y if metric == "delta1" else y


@pytest.mark.parametrize("metric", ["loss", "abs_rel", "delta1"])
def test_thirteen_of_sixteen_hidden_points_lie_inside(metric: str):
    x, y = table(metric)
    assert len(y) == 20
    product = x.prod(axis=1)
    inside, of = np.zeros(2, dtype=int), 0
    for hidden in (
        x[:, 0] == x[:, 0].max(),
        x[:, 1] == x[:, 1].max(),
        product >= np.sort(product)[-9],
    ):
        names = ["params", "images"]
        fits = compare(x[~hidden], y[~hidden], inputs=names, bootstrap=0)
        for place, outcome in zip(x[hidden], y[hidden]):
            said = [one.forecast(place) for one in (fits["chinchilla"], average(fits))]
            inside += [one.lo <= outcome <= one.hi for one in said]
            of += 1
    assert of == 16 and (inside >= 13).all(), inside
