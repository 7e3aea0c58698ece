"""Loss-to-loss relations: what made the pairs comes back, and intervals hold what they should."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import curve_fit

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw
from stepsight.scaling.fitting.search import best_start
from stepsight.scaling.loss_to_loss.floors import Floor, Origin
from stepsight.scaling.loss_to_loss.relation import relate
from stepsight.scaling.loss_to_loss.translation import translate

TRUE = {"K": 0.63, "kappa": 1.1, "E0": 1.97, "E1": 0.85}
X = TRUE["E0"] + np.geomspace(0.3, 1.8, 40)
E0, E1 = Floor(1.97, "law"), Floor(0.85, "measured")


def curve(x: np.ndarray, K: float, kappa: float, E0: float, E1: float) -> np.ndarray:
    return K * (x - E0) ** kappa + E1


def noisy(seed: int, scale: float = 0.003, x: np.ndarray = X) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return curve(x, **TRUE) * np.exp(scale * rng.standard_normal(len(x)))


@pytest.mark.parametrize("known", [(E0, E1), (E0, None), (None, E1), (None, None)])
@pytest.mark.parametrize("unit", [1.0, 0.02])
def test_exact_pairs_give_exact_parameters(known, unit: float):
    """Also in other units: losses of a percent are as good as losses of two nats."""
    floors = [floor and floor._replace(value=unit * floor.value) for floor in known]
    x, y = unit * X, unit * curve(X, **TRUE)
    found = relate(x, y, floor_x=floors[0], floor_y=floors[1], bootstrap=0)
    assert found.kappa == pytest.approx(TRUE["kappa"], rel=1e-4)
    assert (found.E0, found.E1) == pytest.approx((unit * 1.97, unit * 0.85), rel=1e-4)
    assert found.K == pytest.approx(unit * 0.63 / unit**1.1, rel=1e-3)
    np.testing.assert_allclose(found.predict(x), y, rtol=1e-6)
    assert found.verdict == "law" and found.r2 == pytest.approx(1)


def test_known_floors_are_a_straight_line_in_logs():
    y = noisy(0)
    found = relate(X, y, floor_x=E0, floor_y=E1, bootstrap=0)
    slope, level = np.polyfit(np.log(X - 1.97), np.log(y - 0.85), 1)
    assert (found.kappa, found.K) == pytest.approx((slope, np.exp(level)), rel=1e-10)
    assert found.r2 == pytest.approx(1 - np.var(y - found.predict(X)) / np.var(y), abs=1e-4)


def test_an_unknown_floor_of_y_is_the_authors_search():
    """`curve_fit` from (1, 1, 0) within their bounds; theirs is never better."""
    y = noisy(1)
    theirs, _ = curve_fit(
        lambda x, kappa, K, e1: K * (x - 1.97) ** kappa + e1,
        X,
        y,
        (1, 1, 0),
        bounds=([0, 0, 0], [np.inf, np.inf, y.min()]),
    )
    found = relate(X, y, floor_x=E0, bootstrap=0)
    assert (found.kappa, found.K, found.E1) == pytest.approx(tuple(theirs), rel=1e-3)


def test_unknown_floors_beat_every_point_of_a_grid():
    y = noisy(2)
    found = relate(X, y, bootstrap=0)
    ours = np.sum((found.predict(X) - y) ** 2)
    for e0 in np.linspace(0, X.min(), 23, endpoint=False):
        for e1 in np.linspace(0, y.min(), 23, endpoint=False):
            kappa, level = np.polyfit(np.log(X - e0), np.log(y - e1), 1)
            assert ours <= np.sum((np.exp(level) * (X - e0) ** kappa + e1 - y) ** 2)


def test_floors_keep_their_origin_and_what_is_known_of_them():
    """A measured floor is exact, one with a deviation is drawn by it, and of a law's the pairs say
    how far off it may be."""
    found = relate(X, noisy(3), floor_x=E0, floor_y=E1, bootstrap=60)
    assert found.floors == {"E0": "law", "E1": "measured"}
    assert found.intervals["E1"] == (0.85, 0.85) and found.deviations["E1"] == 0
    assert any("E0 (law) came without a deviation: +-" in one for one in found.warnings)
    assert not any("E1" in warning for warning in found.warnings)
    exact = relate(X, noisy(3), floor_x=Floor(1.97, "law", 0.0), floor_y=E1, bootstrap=60)
    assert exact.intervals["E0"] == (1.97, 1.97) and exact.warnings == ()
    unsure = relate(X, noisy(3), floor_x=Floor(1.97, "law", 0.05), floor_y=E1, bootstrap=60)
    assert unsure.intervals["E0"] == pytest.approx((1.97 - 0.098, 1.97 + 0.098), abs=0.02)
    assert unsure.deviations["E0"] == pytest.approx(0.05)
    widths = [hi - lo for lo, hi in (one.intervals["kappa"] for one in (exact, found, unsure))]
    assert widths[0] < widths[1] < widths[2] and widths[2] > 2 * widths[0]


def test_pairs_say_how_far_off_a_floor_may_be():
    """The further, the more; two that make up for each other share it."""
    y = noisy(4)
    known = [relate(X, y, floor_x=Floor(e, "law"), floor_y=E1) for e in (1.97, 1.93, 1.87)]
    off = [one.deviations["E0"] for one in known]
    assert off[0] < 0.03 < off[1] < off[2] and off[2] == pytest.approx(0.1, abs=0.03)
    both = relate(X, y, floor_x=Floor(1.87, "law"), floor_y=Floor(0.85, "law"))
    assert both.deviations["E0"] == pytest.approx(off[2] / 2**0.5, rel=0.05)
    tenth = relate(0.1 * X, 0.1 * y, floor_x=Floor(0.187, "law"), floor_y=Floor(0.085, "measured"))
    assert tenth.deviations["E0"] == pytest.approx(0.1 * off[2], rel=1e-3)


def test_fitted_floors_are_unsure_and_say_so():
    known = relate(X, noisy(4), floor_x=E0, floor_y=E1, bootstrap=40)
    fitted = relate(X, noisy(4), bootstrap=40)
    assert fitted.floors == {"E0": "fitted", "E1": "fitted"}
    assert any("barely identified" in warning for warning in fitted.warnings)
    assert not any("barely identified" in warning for warning in known.warnings)
    lo, hi = fitted.intervals["E0"]
    assert lo < TRUE["E0"] < hi
    spans = [one.forecast(2.1).hi - one.forecast(2.1).lo for one in (known, fitted)]
    assert spans[1] > 1.5 * spans[0]


def test_a_wide_range_identifies_the_floors():
    x = 1.0 + np.geomspace(1e-3, 10, 60)
    y = (0.5 * (x - 1.0) ** 1.2 + 0.3) * np.exp(1e-4 * np.random.default_rng(0).normal(size=60))
    found = relate(x, y, bootstrap=0)
    assert (found.E0, found.E1) == pytest.approx((1.0, 0.3), rel=2e-3)
    assert not any("barely" in warning for warning in found.warnings)


def test_intervals_of_runs_are_wider_where_runs_share_their_luck():
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(8), 5)
    y = curve(X, **TRUE) * np.exp(np.repeat(0.01 * rng.standard_normal(8), 5))
    pairs = relate(X, y, floor_x=E0, floor_y=E1)
    whole = relate(X, y, floor_x=E0, floor_y=E1, groups=runs.tolist())
    assert (pairs.resampling, whole.resampling) == ("pairs", "runs")
    widths = [hi - lo for lo, hi in (one.intervals["kappa"] for one in (pairs, whole))]
    assert widths[1] > 1.2 * widths[0]
    two = relate(X, y, floor_x=E0, floor_y=E1, groups=["a", "b"] * 20, bootstrap=5)
    assert two.resampling == "pairs" and "fewer than 3 runs" in two.warnings[-1]


def covered(draws: int, noise: float, error: float, at: float, origin: Origin) -> tuple[int, int]:
    """Of so many data sets: forecasts at 95 % that held a new pair, and relations called a law.
    Stated floors are off by normal errors that nobody is told of."""
    x = TRUE["E0"] + np.geomspace(0.5, 1.8, 40)
    hits = laws = 0
    for seed in range(draws):
        rng = np.random.default_rng((seed, 7))
        off = error * rng.standard_normal(2)
        floor_x, floor_y = (Floor(TRUE[name] + e, origin) for name, e in zip(("E0", "E1"), off))
        found = relate(x, noisy(seed, noise, x), floor_x=floor_x, floor_y=floor_y, bootstrap=200)
        truth = noisy(seed + 1000, noise, np.array([at]))[0]
        one = found.forecast(at)
        hits += one.lo <= truth <= one.hi
        laws += found.verdict == "law"
    return hits, laws


def test_forecasts_cover_new_pairs():
    """Three times beyond the pairs in reducible x, of floors known exactly."""
    hits, laws = covered(30, 0.005, 0.0, TRUE["E0"] + 0.5 / 3, "measured")
    assert hits >= 26 and laws >= 29


@pytest.mark.slow
def test_forecasts_cover_new_pairs_where_floors_are_off():
    """Nominally 95 %, three times beyond the pairs, with nothing said of the floors' errors."""
    hits, laws = covered(100, 0.005, 0.03, TRUE["E0"] + 0.5 / 3, "law")
    assert 90 <= hits <= 98 and laws >= 95


def test_history_is_told_and_widens_what_it_must():
    """An exponent that grows by a half towards small losses: intervals of the hidden pairs miss."""
    x = TRUE["E0"] + np.geomspace(0.3, 3.0, 40)
    u = np.log(x - TRUE["E0"])
    straight = noisy(0, 0.003, x)
    bent = 0.85 + np.exp(1.1 * u - 0.15 * u**2) * np.exp(
        0.003 * np.random.default_rng(0).standard_normal(40)
    )
    floor = Floor(1.97, "measured")
    good, bad = (relate(x, y, floor_x=floor, floor_y=E1) for y in (straight, bent))
    assert good.verdict == "law" and good.backtest and good.backtest.hits > 0.85 * good.backtest.of
    assert 1 <= good.widening < 2 and good.backtest.axis == "reducible x"
    assert bad.verdict == "improves but no law" and bad.backtest and bad.widening > 3
    assert any("bends in logs above its floors" in one for one in bad.warnings)
    assert any("hidden pairs inside their 95% intervals" in one for one in bad.warnings)
    assert bad.backtest.hits < bad.backtest.of / 2 and bad.backtest.reach > 2
    far, near = bad.forecast(2.07), bad.forecast(2.5)
    assert f"{bad.backtest.hits} of {bad.backtest.of} hidden pairs" in far.basis
    assert far.reach == pytest.approx(3) and near.reach < 1 and "hidden" not in near.basis
    truth = 0.85 + np.exp(1.1 * np.log(0.1) - 0.15 * np.log(0.1) ** 2)
    assert far.lo < truth < far.hi
    few = relate(x[:4], straight[:4], floor_x=floor, floor_y=E1)
    assert few.backtest is None and "too few pairs to hide any" in few.forecast(2.1).basis
    assert few.to_dict()["backtest"] is None
    assert good.to_dict()["backtest"]["of"] == good.backtest.of


def test_forecasts_beyond_the_pairs_say_so():
    found = relate(X, noisy(5), floor_x=E0, floor_y=E1, bootstrap=20)
    assert found.forecast(2.5).warnings == ()
    far = found.forecast(2.06)
    assert "extrapolating" in far.warnings[0] and "0.3 times" in far.warnings[0]
    assert far.lo < far.value < far.hi and far.value == pytest.approx(float(found.predict(2.06)))
    with pytest.raises(UserError, match="not above the law floor"):
        found.forecast(1.9)
    fitted = relate(X, X - 2.0, bootstrap=20)  # a straight line may start anywhere
    below = fitted.forecast(fitted.E0 / 2)
    assert below.value == fitted.E1 and "below the fitted E0" in below.warnings[0]


@pytest.mark.parametrize(
    "count, verdict", [(1, "too few points"), (3, "too few points"), (4, "law")]
)
def test_few_pairs(count: int, verdict: str):
    found = relate(X[:count], curve(X, **TRUE)[:count], floor_x=E0, floor_y=E1, bootstrap=10)
    assert found.verdict == verdict
    assert (found.resampling == "none") == (verdict != "law")
    assert np.isnan(found.kappa) == (count == 1)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("known", [(Floor(0.0), Floor(0.0)), (None, None), (Floor(0.0), None)])
def test_steps_stay_finite(known):
    """y changes a thousandfold and x by a percent: kappa would be huge, K beyond floating point."""
    x = 0.01 * np.linspace(1.0, 1.01, 12)
    y = np.geomspace(1e-3, 1, 12)
    found = relate(x, y, floor_x=known[0], floor_y=known[1], bootstrap=10)
    assert np.isfinite([found.K, found.kappa, found.E0, found.E1, *found.solution.scatter]).all()
    assert any("kappa is at its bound 100" in one for one in found.warnings)
    if known[0] is None:  # a step above a floor of x is nearly what these pairs are
        assert np.sum((found.predict(x) - y) ** 2) < 3.3e-6
    json.dumps(found.to_dict(), allow_nan=False)


def test_no_relation_is_no_law():
    rng = np.random.default_rng(0)
    noise = relate(X, 1 + 0.1 * rng.random(len(X)), floor_x=E0, floor_y=Floor(0.5), bootstrap=30)
    assert noise.verdict == "improves but no law"
    falling = relate(X, 5 - X, floor_x=E0, floor_y=Floor(0.1), bootstrap=30)
    assert falling.verdict == "improves but no law" and "y does not fall with x" in falling.warnings
    bounded = relate(X, (X - 1.97) ** 1.1, floor_x=E0, bootstrap=0)
    assert any("E1 is at its bound 0" in warning for warning in bounded.warnings)


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_a_floor_at_the_smallest_loss_is_no_law(seed: int):
    """Losses that stay level up to 2.5 and rise after it have no floor to fall towards."""
    x = np.linspace(2, 4, 12)
    scatter = 0.01 * np.random.default_rng(seed).standard_normal(12)
    found = relate(x, 1 + 0.5 * np.maximum(x - 2.5, 0) + scatter, bootstrap=40)
    assert found.verdict == "improves but no law"
    assert found.warnings[0] == "E0 is at its bound the smallest loss"


def test_a_search_that_found_no_optimum_is_no_law(monkeypatch):
    def stopped(data):
        return best_start(data, steps=1)

    monkeypatch.setattr("stepsight.scaling.loss_to_loss.solving.best_start", stopped)
    found = relate(X, noisy(0), bootstrap=0)
    assert found.verdict == "improves but no law"
    assert "the search did not converge" in found.warnings


def test_what_cannot_be_related():
    with pytest.raises(UserError, match="--floor-x 2.5 .* smallest x, 2.27"):
        relate(X, X, floor_x=Floor(2.5))
    with pytest.raises(UserError, match="1 of 2 values of y are not positive"):
        relate([1.0, 2.0], [0.0, 1.0])
    with pytest.raises(UserError, match="no pairs"):
        relate([], [])


def test_same_seed_same_relation():
    one, two, three = (relate(X, noisy(6), floor_x=E0, bootstrap=8, seed=s) for s in (0, 0, 1))
    assert one == two and one.intervals != three.intervals


def test_translation_of_both_forms():
    """Exact for Kaplan's form everywhere; for Chinchilla's where one term outweighs the other."""
    found = relate(X, curve(X, **TRUE), floor_x=E0, floor_y=E1, bootstrap=0)
    n, d = np.geomspace(1e6, 1e10, 7), np.geomspace(1e8, 1e11, 7)[:, None]
    kaplan = TrainingLaw(1.97, 6.7e7, 0.41, 8.9e8, 0.46, "kaplan")
    carried = translate(kaplan, found)
    np.testing.assert_allclose(
        carried.loss(n, d), curve(kaplan.loss(n, d), **TRUE), rtol=1e-9, atol=0
    )
    assert (carried.G, carried.a) == pytest.approx((kaplan.G, kaplan.a))
    chinchilla = TrainingLaw(1.97, 400.0, 0.34, 410.0, 0.28)
    for at in ((1e5, 1e30), (1e30, 1e5)):
        truth = curve(chinchilla.loss(*at), **TRUE)
        assert translate(chinchilla, found).loss(*at) == pytest.approx(truth, rel=1e-6)
