"""Luck is taken out of measured settings and of the best of many, and no more than luck."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from stepsight.scaling.sampling.images import FILE, tables_beside
from stepsight.scaling.sampling.paired import FamilySetting, MetricTable
from stepsight.scaling.sampling.planner import plan, plans
from stepsight.scaling.sampling.response_surface import ResponseSurface
from stepsight.scaling.sampling.shrinkage import (
    LIMIT,
    beside_the_others,
    image_covariance,
    optimism,
    root,
    shrunk,
)
from stepsight.scaling.sampling.sweeps import write_sweep

GRID = [(t, n) for t in (1, 2, 4, 8) for n in (1, 2, 4)]
IMAGES = 96


def falling(t, n):
    return 0.1 + 0.1 / t + 0.05 / n


def test_a_value_moves_by_the_share_of_noise_in_its_scatter():
    left = np.array([0.02, -0.01, 0.01, 0.01])
    values, own = shrunk(np.full(4, 0.3), left, np.full(4, 1e-4))
    # of the first all scatter is noise, of which the limit lets 1.96 deviations go
    assert values[0] == pytest.approx(0.3 - LIMIT * 0.01)
    scatter = (4e-4 + 2e-4) / 3
    assert values[1] == pytest.approx(0.3 + 1e-4 / scatter * 0.01)
    assert own[1] == pytest.approx(0.5)


def test_what_is_not_luck_stays():
    left = np.array([0.1, 0.001, -0.001, 0.001, math.nan])
    values, own = shrunk(np.full(5, 0.3), left, np.full(5, 1e-6))
    assert values[0] == pytest.approx(0.3 - LIMIT * 1e-3), "a hundred deviations off"
    assert values[4] == 0.3 and own[4] == 1.0, "of which the others say nothing"
    assert shrunk(left, left, np.full(5, math.nan))[1].tolist() == [1.0] * 5
    assert shrunk(left[:2], left[:2], np.ones(2))[1].tolist() == [1.0, 1.0]


def with_images(cell, rows):
    """Cells of some images' errors by setting, the tables behind them, and their places."""
    cells = []
    for (t, n), errors in rows.items():
        half = 1.959964 * errors.std(ddof=1) / math.sqrt(len(errors))
        value = float(errors.mean())
        cells.append(cell(t, n, value=value, lo=value - half, hi=value + half))
    family, keys = cells[0].family, [str(i) for i in range(len(next(iter(rows.values()))))]
    settings = {at: np.stack([errors, np.ones(len(keys))], 1) for at, errors in rows.items()}
    about = {"task": "depth", "metric": "abs_rel", "family": family, "keys": keys}
    return (
        cells,
        [MetricTable(**about, settings=settings)],
        [FamilySetting(family, *at) for at in rows],
    )


def drawn(truth, rng, own, shared, settings):
    """Errors of images, whose hardness all settings share, and luck of each setting's own."""
    hard = np.exp(rng.normal(-(shared**2) / 2, shared, IMAGES))
    return {at: truth(*at) * hard * (1 + rng.normal(0, own, IMAGES)) for at in settings}


def test_the_jackknife_of_means_is_their_sample_covariance(cell):
    values = np.random.default_rng(0).normal(size=(2, 30))
    _, tables, places = with_images(cell, {(1, 1): values[0], (2, 1): values[1]})
    found = image_covariance(tables, places)
    assert found is not None and found == pytest.approx(np.cov(values) / 30)
    assert root(found) @ root(found).T == pytest.approx(found)
    assert image_covariance(tables, [*places, FamilySetting(tables[0].family, 4, 1)]) is None
    scale = np.array([1.0, 2.0, 3.0])
    hard = np.outer(scale, scale)
    assert beside_the_others(hard) == pytest.approx(0.0), "shared by all"
    assert beside_the_others(np.diag(scale)) == pytest.approx(scale), "each its own"


def test_how_much_too_good_the_best_of_equals_seems():
    """Of two normal values 1 / sqrt(pi) deviations; of far ones and of shared noise nothing."""
    two = optimism(np.zeros(2), 0.1 * np.eye(2))
    assert two == pytest.approx(0.1 / math.sqrt(math.pi), rel=0.05)
    assert optimism(np.array([0.0, 9.0]), 0.1 * np.eye(2)) == pytest.approx(0.0, abs=1e-12)
    assert optimism(np.zeros(3), 0.1 * np.ones((3, 1))) == pytest.approx(0.0, abs=1e-12)


def lucky(cell):
    return replace(cell, value=0.9 * cell.value, lo=0.85 * cell.value, hi=0.95 * cell.value)


def test_a_lucky_cell_is_not_promised(sweep):
    """A tenth better than the surface says, in a table alone: the promise goes most of the way."""
    cells = [lucky(c) if c.setting == (8, 4) else c for c in sweep(falling)]
    assert plan(cells, "depth", "32nfe").expected == pytest.approx(falling(8, 4), rel=0.06)
    choice = ResponseSurface(cells).choice((8, 4))
    assert choice is not None and choice.own < 0.6 and "drawn" in choice.basis
    assert choice.seen == pytest.approx(0.9 * falling(8, 4))


def test_what_the_images_prove_is_promised(cell):
    """The same cell where all images agree on it: noise is shared, and the dip is there."""

    def dipping(t, n):
        return falling(t, n) * (0.9 if (t, n) == (8, 4) else 1)

    rows = drawn(dipping, np.random.default_rng(0), 0.01, 0.5, GRID)
    cells, tables, _ = with_images(cell, rows)
    planned = plan(cells, "depth", "32nfe", tables=tables)
    assert (planned.nfe, planned.members, planned.noise) == (8, 4, "images")
    assert planned.expected == pytest.approx(planned.seen, rel=0.01) and planned.own > 0.8


def test_the_best_of_many_equals_is_promised_for_less_than_it_showed(cell):
    rows = drawn(
        lambda t, n: 0.2, np.random.default_rng(1), 0.4, 0.0, [(1, n) for n in range(1, 9)]
    )
    cells, tables, _ = with_images(cell, rows)
    for images in (tables, ()):
        planned = plan(cells, "depth", "8nfe", tables=images)
        assert planned.expected > min(c.value for c in cells) and planned.optimism > 0
        assert planned.lo < 0.2 < planned.hi and "for having been chosen" in planned.basis


def test_images_are_read_where_they_give_the_values_of_the_table(tmp_path, cell):
    rows = drawn(falling, np.random.default_rng(0), 0.1, 0.5, [(1, 1), (2, 1), (2, 2)])
    cells, _, _ = with_images(cell, rows)
    path = tmp_path / "sweep.csv"
    assert tables_beside(path, cells) == []
    how = {name: cells[0].columns[name] for name in ("task", "sampler", "spacing", "schedule")}
    samples = [
        {"key": f"{i:02d}", "nfe": t, "members": n, "abs_rel": repr(float(error))} | how
        for (t, n), errors in rows.items()
        for i, error in enumerate(errors)
    ]
    with (tmp_path / FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, samples[0])
        writer.writeheader()
        writer.writerows(samples)
    write_sweep(path, cells)
    (read,) = tables_beside(path, cells)
    assert read.family == cells[0].family and len(read.keys) == IMAGES
    assert all(np.array_equal(read.settings[at][:, 0], errors) for at, errors in rows.items())
    assert tables_beside(path, [replace(cells[0], value=0.5), *cells[1:]]) == [], "another sweep's"


TRUTHS = {
    "separable": lambda t, n: 0.15 + 0.3 * t**-1.2 + 0.08 / n,
    "steps hurt alone": lambda t, n: 0.10 + 0.09 * t**-0.3 + 0.12 * (1 - t**-0.5) / n,
    "elbow": lambda t, n: 0.20 + 0.5 * math.exp(-(t - 1) / 1.5) + 0.05 / n,
    "flat": lambda t, n: 0.2 + 0.002 / t + 0.002 / n,
}


@pytest.mark.slow
def test_intervals_of_chosen_settings_hold_on_fresh_images(cell):
    """48 settings: truths, budgets, and how much noise a setting has of its own."""
    inside, off = [], []
    for name, truth in TRUTHS.items():
        for own, shared in ((0.1, 0.5), (0.4, 0.4), (0.5, 0.0)):
            for draw in range(2):
                rng = np.random.default_rng([draw, len(name), int(100 * own)])
                cells, tables, _ = with_images(cell, drawn(truth, rng, own, shared, GRID))
                for best in plans(cells, "depth", ["2nfe", "4nfe", "8nfe", "32nfe"], tables=tables):
                    at = best.nfe, best.members
                    outcome = drawn(truth, rng, own, shared, [at])[at].mean()
                    inside.append(best.lo <= outcome <= best.hi)
                    off.append(truth(*at) / best.expected - 1)
    assert len(inside) == 48 * 2 and 0.85 <= np.mean(inside) <= 0.97
    assert abs(np.mean(off)) < 0.02
