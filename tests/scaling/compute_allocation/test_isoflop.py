"""IsoFLOP profiles: exact where parabolas are, biased as said where not, and published sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.compute_allocation.isoflop import Isoflop, isoflop

BUDGETS = np.geomspace(1e17, 1e21, 5)
EVEN = TrainingLaw(E=1.7, A=400.0, alpha=0.32, B=700.0, beta=0.32)
UNEVEN = TrainingLaw(E=1.7, A=400.0, alpha=0.38, B=700.0, beta=0.26)


def runs(law: TrainingLaw, width: float, *, drift: float = 0.0, noise: float = 0.0, seed: int = 0):
    """Nine sizes from 1 / width to width times the optimum; `drift` moves the middle of the grid
    by so many powers of the budget."""
    rng = np.random.default_rng(seed)
    columns = []
    for budget in BUDGETS:
        middle = allocate(law, budget).params * (budget / BUDGETS[0]) ** drift
        params = middle * np.geomspace(1 / width, width, 9)
        samples = budget / (6 * params)
        loss = law.loss(params, samples) * np.exp(noise * rng.standard_normal(9))
        columns.append(np.stack([np.full(9, budget), params, samples, loss]))
    return np.concatenate(columns, axis=1)


def test_equal_exponents_are_found_exactly_in_the_middle():
    found = isoflop(*runs(EVEN, 3.0), bootstrap=0)
    for one in found.profiles:
        optimal = allocate(EVEN, one.budget)
        assert one.params == pytest.approx(optimal.params, rel=1e-6)
        assert one.samples == pytest.approx(optimal.samples, rel=1e-6)
        assert one.loss == pytest.approx(optimal.loss, rel=2e-3)
        assert one.inside and one.shift == pytest.approx(0, abs=1e-6)
    assert (found.a, found.b) == pytest.approx((0.5, 0.5), abs=1e-9)
    assert found.params(1e22) == pytest.approx(allocate(EVEN, 1e22).params, rel=1e-6)
    assert found.samples(1e22) == pytest.approx(allocate(EVEN, 1e22).samples, rel=1e-6)


def bias(found: Isoflop, law: TrainingLaw) -> np.ndarray:
    return np.array([one.params / allocate(law, one.budget).params - 1 for one in found.profiles])


def test_unequal_exponents_are_biased_by_a_constant_on_grids_that_move():
    narrow, wide = (isoflop(*runs(UNEVEN, width), bootstrap=0) for width in (2.0, 8.0))
    assert np.ptp(bias(wide, UNEVEN)) < 1e-6 and wide.a == pytest.approx(UNEVEN.a, abs=1e-9)
    assert abs(bias(wide, UNEVEN)[0]) > 5 * abs(bias(narrow, UNEVEN)[0]) > 0.01


def test_the_cubic_term_shows_the_bias():
    """It moves N* back by most of the bias."""
    found = isoflop(*runs(UNEVEN, 6.0), bootstrap=0)
    for one, off in zip(found.profiles, bias(found, UNEVEN)):
        assert one.shift * off < 0
        assert abs((1 + one.shift) * (1 + off) - 1) < 0.4 * abs(off)
    assert "parabolas are exact only for alpha = beta" in found.warnings[-1]


def test_a_grid_that_does_not_follow_biases_the_exponent():
    found = isoflop(*runs(UNEVEN, 8.0, drift=-0.15), bootstrap=0)
    assert abs(found.a - UNEVEN.a) > 0.01


def test_intervals_cover_the_exponents():
    covered = 0
    for seed in range(20):
        columns = runs(EVEN, 4.0, noise=0.004, seed=seed)
        lo, hi = isoflop(*columns, bootstrap=40, level=0.9, seed=seed).intervals["a"]
        covered += lo <= 0.5 <= hi
    assert 15 <= covered <= 20


def test_profiles_without_an_optimum_are_left_out_and_named():
    budget, params, samples, loss = runs(EVEN, 3.0)
    falling = budget == BUDGETS[0]
    loss[falling] = 3 - 0.1 * np.log(params[falling] / params[falling][0])
    flat = budget == BUDGETS[4]
    loss[flat] = 2.0
    found = isoflop(budget, params, samples, loss, bootstrap=5)
    assert [one.inside for one in found.profiles] == [False, True, True, True, False]
    assert found.warnings[0].endswith("left out: 1e+17, 1e+21")
    assert found.a == pytest.approx(0.5, abs=1e-6) and found.budgets == (1e18, 1e20)
    json.dumps(found.to_dict(), allow_nan=False)


def test_thin_designs_are_said():
    columns = runs(EVEN, 3.0)
    three = np.flatnonzero(np.isin(columns[0], BUDGETS[:2]) & (np.arange(45) % 9 % 4 == 0))
    found = isoflop(*columns[:, three], bootstrap=0)
    assert any("three runs make a parabola" in warning for warning in found.warnings)
    assert any("budgets span 1.0 decades" in warning for warning in found.warnings)
    assert any("no profile has sizes enough" in warning for warning in found.warnings)
    columns[2] *= columns[0] ** 0.1
    sums = isoflop(*columns, bootstrap=0)
    assert any("a + b = 1.100" in warning for warning in sums.warnings)


def test_three_sizes_take_their_scatter_from_other_budgets():
    """A parabola leaves nothing of three runs: alone they have no intervals."""
    columns = runs(EVEN, 4.0, noise=0.004)
    few = np.arange(45) % 9 % 4 == 0
    alone = isoflop(*columns[:, few], bootstrap=40)
    assert np.isnan([*alone.intervals.values()]).all() and not alone.draws
    assert np.isnan(alone.optimum(1e20)["params_interval"]).all()
    assert any("so there are no intervals" in warning for warning in alone.warnings)
    mixed = isoflop(*columns[:, few | (columns[0] == BUDGETS[2])], bootstrap=40)
    whole = isoflop(*columns, bootstrap=40)
    widths = [np.diff(found.intervals["a"])[0] for found in (whole, mixed)]
    assert widths[0] / 3 < widths[1] < 3 * widths[0]
    assert any("taken from other budgets" in warning for warning in mixed.warnings)


def test_what_holds_no_law():
    columns = runs(EVEN, 3.0)
    with pytest.raises(UserError, match="1 of 1 budgets have an optimum"):
        isoflop(*columns[:, :9])
    columns[3, 0] = np.nan
    with pytest.raises(UserError, match="1 of 45 values of loss are not positive"):
        isoflop(*columns)


def published_set(rows: list[dict[str, str]], experiment: str) -> Isoflop:
    own = [row for row in rows if row["experiment"] == experiment]
    columns = [[float(row[k]) for row in own] for k in ("budget", "params", "tokens", "loss")]
    return isoflop(*columns, bootstrap=60)


def test_published_llama_three(published):
    """arXiv:2407.21783, sec. 3.2.1, prints D* = .29 C^.53, cut off after two digits, and from it
    402 B parameters at 3.8e25 FLOPs."""
    rows = published("isoflops_public_collection.csv")
    found = published_set(rows, "llama_3__exp_loss")
    assert 0.53 <= found.b < 0.54 and 0.29 <= found.H < 0.3
    assert found.a + found.b == pytest.approx(1, abs=1e-6)
    assert found.params(3.8e25) == pytest.approx(402e9, rel=0.05)
    assert all(one.inside for one in found.profiles)


@pytest.mark.parametrize(
    "experiment",
    ["epochai_chinchilla__massivetext__chinchilla", "ml_scalefit__massivetext__chinchilla"],
)
def test_published_chinchilla(published, experiment: str):
    """Hoffmann et al. print a = .49 for approach 2; these are two readings of their figure."""
    found = published_set(published("isoflops_public_collection.csv"), experiment)
    assert found.a == pytest.approx(0.49, abs=0.025)
    lo, hi = found.intervals["a"]
    assert lo < 0.49 < hi and hi - lo < 0.1
    assert found.warnings[0] == "no optimum inside the range of sizes, left out: 1e+20"
