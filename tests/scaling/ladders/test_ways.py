"""Direct or in two steps: what each way forecasts, how the choice is made, and what it is worth."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from stepsight.scaling.fitting.quality import Expected
from stepsight.scaling.ladders.ways import DirectWay, Rehearsal, RungPoints, TwoSteps, Ways, honest
from stepsight.scaling.laws.averaging import Averaged

OWN = Path(__file__).parents[3] / "docs" / "data" / "ladder-depth.csv"
AT = np.array([4e6, 2e5])


def points() -> RungPoints:
    """Losses by a known law, and errors that go with their cube, which is no sum of powers."""
    x = np.array([(n, d) for n in (6e4, 2e5, 6e5, 2e6) for d in (4e3, 1e4, 3e4, 9e4)])
    return RungPoints(x, 2 * loss_at(x) ** 3, loss_at(x), tuple(range(len(x))))


def loss_at(x: np.ndarray) -> np.ndarray:
    return 0.1 + 40 * x[..., 0] ** -0.5 + 30 * x[..., 1] ** -0.6


def test_a_metric_that_follows_its_loss_is_forecast_through_that():
    way, rehearsal = Ways().best(points())
    assert isinstance(way, TwoSteps) and rehearsal is not None
    said = way.forecast(AT)
    loss = way.loss.forecast(AT)
    error = way.error.forecast(1 / loss.value)
    assert said.value == error.value and said.reach == loss.reach
    assert said.value == pytest.approx(2 * loss_at(AT) ** 3, rel=1e-3)
    assert math.log(said.hi / said.lo) > math.log(error.hi / error.lo)  # of both steps
    assert "two steps" in way.name and way.form.startswith("two steps: average of ")


@pytest.mark.parametrize(
    ("loss", "error", "worse"),
    [
        ("law", "law", "law"),
        ("law", "saturated", "saturated"),
        ("improves but no law", "saturated", "saturated"),
        ("not monotone", "improves but no law", "not monotone"),
    ],
)
def test_two_steps_are_no_better_than_the_worse(loss, error, worse):
    one, other = (cast("Averaged", SimpleNamespace(verdict=verdict)) for verdict in (loss, error))
    assert TwoSteps(one, other).verdict == worse


def test_without_losses_there_is_one_way():
    found = points()
    alone = RungPoints(found.x, found.errors, None, found.groups)
    assert isinstance(Ways().best(alone)[0], DirectWay)


def test_replicates_say_how_runs_scatter():
    found = points()
    twice = RungPoints(
        np.concatenate([found.x, found.x]),
        np.concatenate([found.errors, found.errors * math.exp(0.1)]),
        None,
        tuple(range(32)),
    )
    assert found.scatter == 0.0
    assert twice.scatter == pytest.approx(0.1 / math.sqrt(2))


def test_misses_widen_their_side_and_seeds_both():
    said = Expected(1.0, math.exp(-0.1), math.exp(0.1), 0.9, ())
    missed = Rehearsal(hits=3, of=5, reach=2.0, error=0.1, below=2.0, above=1.0)
    wider = honest(said, 0.0, missed)
    assert (math.log(wider.lo), math.log(wider.hi)) == pytest.approx((-0.2, 0.1))
    wider = honest(said, 0.1, missed)
    assert (math.log(wider.lo), math.log(wider.hi)) == pytest.approx((-0.2, 0.1645), abs=1e-4)


def test_a_rehearsal_says_what_it_is_not():
    beyond = Rehearsal(hits=19, of=19, reach=2.0, error=0.1, below=1.0, above=1.0)
    assert beyond.beyond and not [*beyond.limits(0.9)]
    few = beyond._replace(hits=3, of=3, reach=0.45)
    assert not few.beyond and [*few.limits(0.9)] == [
        "no rung beyond the rest could be hidden",
        "the widest of 3 misses stands in for the quantile that widens it",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["loss", "abs_rel", "delta1"])
def test_our_own_ladder_told_again(metric):
    """Sizes, amounts, and both, hidden from docs/data/ladder-depth.csv: 13 of 16 inside 90 %."""
    with OWN.open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["metric"] == metric.replace("loss", "abs_rel")
        ]
    x = np.array([[float(row["params_active"]), float(row["images_seen"])] for row in rows])
    losses, values = (np.array([float(row[name]) for row in rows]) for name in ("loss", "value"))
    errors = {"loss": losses, "abs_rel": values, "delta1": 1 - values}[metric]
    every = RungPoints(x, errors, None if metric == "loss" else losses, tuple(range(len(x))))
    product = x.prod(axis=1)
    hits = of = 0
    for hidden in (
        *(along >= np.unique(along)[-2] for along in x.T),
        product >= np.sort(product)[-(len(x) // 3)],
    ):
        kept = every.only(~hidden)
        way, rehearsal = Ways().best(kept)
        for at, outcome in zip(x[hidden], errors[hidden]):
            said = honest(way.forecast(at), kept.scatter, rehearsal)
            hits, of = hits + (said.lo <= outcome <= said.hi), of + 1
    assert of == 16 and hits >= 13
