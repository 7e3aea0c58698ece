"""Optima of fitted laws: intervals that hold the true ones, and tables that cannot have any."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.compute_allocation.fitted import (
    FittedTrainingLaw,
    confounded,
    fit_training_law,
    rank_correlation,
)

LAW = TrainingLaw(E=1.8, A=480.0, alpha=0.35, B=2085.0, beta=0.37)
PARAMS = np.repeat(np.geomspace(5e7, 5e9, 6), 5)
SAMPLES = np.sqrt(5e8 * PARAMS) * np.tile(np.geomspace(4, 100, 5), 6)
BEYOND = 10 * 6 * float((PARAMS * SAMPLES).max())  # FLOPs


def fitted(seed: int, noise: float = 0.02, **options) -> FittedTrainingLaw:
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(PARAMS)))
    return fit_training_law(
        "chinchilla", PARAMS, SAMPLES, LAW.loss(PARAMS, SAMPLES) * scatter, **options
    )


def holds(ends: tuple[float, float], value: float) -> bool:
    return ends[0] <= value <= ends[1]


def test_an_optimum_comes_with_its_intervals():
    found, truth = fitted(0, 0.005, bootstrap=60), allocate(LAW, BEYOND)
    best = found.optimum(BEYOND)
    assert best["params"] == pytest.approx(allocate(found.law, BEYOND).params)
    for name in ("params", "samples", "loss"):
        lo, hi = best[f"{name}_interval"]
        assert lo < best[name] < hi and holds((lo, hi), getattr(truth, name))
    assert best["reach"] == pytest.approx(10) and "earlier forecasts" in best["basis"]
    assert found.lost == 0 and best["verdict"] == found.fit.verdict == "law"
    assert {"E", "A", "alpha", "B", "beta", "a", "b", "G"} == found.intervals.keys()
    assert holds(found.intervals["a"], LAW.a) and holds(found.intervals["G"], LAW.G)
    near = found.optimum(BEYOND / 100)
    widths = [np.log(one["params_interval"][1] / one["params_interval"][0]) for one in (near, best)]
    assert widths[0] < widths[1]


def test_runs_are_drawn_whole():
    groups = [str(place // 5) for place in range(len(PARAMS))]
    assert fitted(0, bootstrap=10, groups=groups).fit.resampling == "runs"
    none = fitted(0, bootstrap=0).optimum(BEYOND)
    assert np.isnan(none["params_interval"]).all() and none["params"] > 0


@pytest.mark.slow
def test_intervals_cover_the_optimum_at_ten_times_the_budget():
    """Nominally 95 %, of runs that scatter by 2 %."""
    truth, covered = allocate(LAW, BEYOND), np.zeros(2)
    for seed in range(40):
        best = fitted(seed, bootstrap=100).optimum(BEYOND)
        covered += [
            holds(best["params_interval"], truth.params),
            holds(best["loss_interval"], truth.loss),
        ]
    assert (covered >= 35).all()


def test_tables_that_tell_nothing_apart_are_refused():
    loss = LAW.loss(PARAMS, SAMPLES)
    together = PARAMS**0.5 * 1e5
    with pytest.raises(UserError, match="rise together in this table: rank correlation 1.00"):
        fit_training_law("chinchilla", PARAMS, together, LAW.loss(PARAMS, together))
    with pytest.raises(UserError, match="move against each other"):
        fit_training_law("chinchilla", PARAMS, 1e19 / PARAMS, loss)
    two = np.where(PARAMS > 5e8, 1e9, 1e8)
    with pytest.raises(UserError, match="holds 2 values of parameters"):
        fit_training_law("chinchilla", two, SAMPLES, LAW.loss(two, SAMPLES))
    with pytest.raises(UserError, match="These 30 runs leave no optimum: the fit ends at E"):
        fit_training_law("chinchilla", PARAMS, SAMPLES, 1 + SAMPLES**-0.3, bootstrap=0)


def test_a_rate_that_follows_the_size_is_said():
    assert confounded("lr", 1 / PARAMS, PARAMS, SAMPLES)[0].startswith(
        "lr changes with parameters (rank correlation -1.00)"
    )
    assert confounded("lr", np.tile([1e-3, 2e-3], 15), PARAMS, SAMPLES) == []
    assert confounded("lr", np.full(30, 1e-3), PARAMS, SAMPLES) == []


def test_ties_share_their_rank():
    """By hand: ranks 1.5, 1.5, 3 against 1, 2, 3."""
    expected = np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1]
    assert rank_correlation(np.array([4.0, 4, 9]), np.array([1.0, 5, 7])) == pytest.approx(expected)
