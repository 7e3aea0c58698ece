"""Forecasts are scored on points that they did not see, and what they missed widens the next."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.laws.averaging import average
from stepsight.scaling.laws.fits import Fit, compare, fit
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.laws.rivals import rivals_of

X = np.geomspace(1e4, 1e7, 12)
GRID = np.array([(n, d) for n in np.geomspace(1e7, 1e9, 5) for d in np.geomspace(1e8, 1e10, 5)])


def noisy(y: np.ndarray, seed: int, scale: float = 0.01) -> np.ndarray:
    return y * np.exp(scale * np.random.default_rng(seed).standard_normal(len(y)))


def bending(x: np.ndarray) -> np.ndarray:
    """The local exponent rises with x."""
    u = np.log(x / 1e4)
    return np.exp(-0.05 * u - 0.02 * u**2)


def half(one: Fit, at: float) -> float:
    said = one.forecast(at)
    return math.log(said.hi / said.lo) / 2


def test_hidden_points_are_those_beyond_each_origin():
    """Twelve places: from the sixth on all are origins, and 6 + 5 + ... + 1 points are hidden."""
    tested = fit("power", X, noisy(4 * X**-0.15, 0), bootstrap=0).backtest
    assert tested is not None and tested.axis == "x" and tested.of == 21
    assert tested.reach == pytest.approx(X[-1] / X[5])
    assert tested.hits <= tested.of and tested.error < 0.03


def test_forecasts_of_hidden_points_are_those_of_a_fit_without_them():
    y = noisy(4 * X**-0.15, 1)
    one = fit("power", X, y, bootstrap=0)
    assert one.outlook is not None
    trials = one.outlook.trials
    last = trials.some(trials.origin == trials.origin.max())
    part = fit("power", X[:11], y[:11], bootstrap=0)
    missed = math.log(float(part.predict(X[11])) / y[11])
    assert last.error == pytest.approx(missed, abs=1e-6)
    assert part.outlook is not None
    expected = part.outlook.deviation(np.log(X[11:, None]))
    assert last.deviation == pytest.approx(expected, rel=1e-4)


def test_the_axes_of_two_inputs_are_each_of_them_and_their_product():
    y = noisy(1.7 + 400 * GRID[:, 0] ** -0.34 + 410 * GRID[:, 1] ** -0.28, 0)
    one = fit("chinchilla", GRID, y, bootstrap=0)
    assert one.backtest is not None
    assert one.backtest.axis == "params, tokens, params x tokens"
    assert one.forecast((4e9, 1e9)).reach == pytest.approx(4)  # along one
    assert one.forecast((2e9, 3e10)).reach == pytest.approx(6)  # along both
    assert one.forecast((1e8, 1e9)).reach < 1


def test_runs_are_hidden_whole():
    """A run whose end lies beyond the origin shows none of its checkpoints."""
    runs = np.repeat(np.arange(6), 3)
    x = np.concatenate([start * np.array([1.0, 3.0, 9.0]) for start in np.geomspace(1e4, 1e7, 6)])
    rng = np.random.default_rng(0)
    offset = 0.05 * rng.standard_normal(6)[runs]
    y = 4 * x**-0.15 * np.exp(offset + 0.002 * rng.standard_normal(len(x)))
    one = fit("power", x, y, groups=runs.tolist(), bootstrap=0)
    assert one.outlook is not None
    spread, trials = one.outlook.spread, one.outlook.trials
    for origin in np.unique(trials.origin):
        hidden = {*trials.run[trials.origin == origin].astype(int).tolist()}
        assert hidden == set(range(min(hidden), 6))
    assert spread.between > 10 * spread.within and spread.spare < 6
    assert half(one, 1e9) > 1.5 * half(fit("power", x, y, bootstrap=0), 1e9)


def test_what_was_missed_widens_the_interval_on_its_side():
    said = fit("power", X, bending(X), bootstrap=0).forecast(4 * X[-1])
    below, above = math.log(said.value / said.lo), math.log(said.hi / said.value)
    assert said.lo < bending(np.array([4 * X[-1]]))[0] and below > 2 * above
    assert "back-test" in said.basis and said.reach == pytest.approx(4)


def test_too_few_points_to_hide_any_fall_back_on_students_t():
    one = fit("power", X[:4], noisy(4 * X[:4] ** -0.15, 0), bootstrap=0)
    assert one.backtest is None and one.to_dict()["backtest"] is None
    assert "Student's t" in one.forecast(1e6).basis


def test_a_back_test_is_json():
    row = fit("power", X, noisy(4 * X**-0.15, 0), bootstrap=0).to_dict()
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert {*row["backtest"]} == {"axis", "hits", "of", "reach", "error", "bias"}


DENIED = {
    "bends": (
        "power",
        X,
        bending(X),
        "bend away",
    ),
    "has a floor": ("power", X, 0.3 + 20 * X**-0.4, "power_floor fits far better"),
    "misses its top by half": (
        "power",
        X,
        np.where(X < 1e6, X**-0.1, 1e6**-0.1 * (X / 1e6) ** -0.7),
        "left out at the top",
    ),
}


@pytest.mark.parametrize("kind", DENIED)
def test_what_is_no_law_is_denied_with_a_reason(kind: str):
    form, x, y, reason = DENIED[kind]
    one = fit(form, x, noisy(y, 3), bootstrap=0)
    assert one.verdict == "improves but no law"
    assert any(reason in note for note in one.warnings), one.warnings


def test_an_interaction_of_size_and_data_is_no_sum():
    n, d = GRID.T / np.exp(np.log(GRID).mean(axis=0))[:, None]
    one = fit("chinchilla", GRID, noisy(n**-0.3 * d**-0.3, 0), bootstrap=0)
    assert one.verdict == "improves but no law"


def test_a_law_stays_one():
    laws = [fit("power", X, noisy(4 * X**-0.15, s, 0.02), bootstrap=0).verdict for s in range(20)]
    assert laws.count("law") >= 17


def test_exactly_two_decades_are_two():
    x = np.geomspace(0.07, 7.0, 9)
    assert not fit("power", x, 4 * x**-0.2, bootstrap=0).warnings


def test_an_average_trusts_the_form_that_forecast_better():
    y = noisy(0.12 + 4 * X**-0.25, 0, 0.005)
    fits = compare(X, y, bootstrap=0)
    mean = average(fits)
    assert sum(mean.weights.values()) == pytest.approx(1)
    assert mean.weights["power_floor"] > 0.8 and mean.best.form == "power_floor"
    said, parts = mean.forecast(1e9), [one.forecast(1e9) for one in fits.values()]
    values = sorted(part.value for part in parts)
    assert values[0] < said.value < values[1] and said.lo < said.value < said.hi
    assert mean.verdict == fits["power_floor"].verdict and mean.n == len(X)


@pytest.mark.parametrize("luck", [0.0, 0.01])
def test_checkpoints_of_few_runs_show_their_bend(luck: float):
    """Eight runs of ten rows: that runs share luck makes the curve no straighter."""
    rng, runs = np.random.default_rng(0), np.repeat(np.arange(8), 10)
    x = np.geomspace(1e4, 1e7, 80)
    u = np.log(x / 1e4)
    y = np.exp(-0.05 * u - 0.003 * u**2 + luck * rng.standard_normal(8)[runs])
    one = fit("power", x, noisy(y, 1), groups=runs.tolist(), bootstrap=0)
    assert one.verdict == "improves but no law" and "bend away" in " ".join(one.warnings)


def test_what_is_held_out_is_hidden_with_its_run():
    """Six runs from one place to distinct ends: of those that reach the top nothing is seen."""
    runs = np.repeat(np.arange(6), 8)
    x = np.concatenate([np.geomspace(1e3, end, 8) for end in np.geomspace(1e5, 1e7, 6)])
    y = 4 * x**-0.2 * np.exp(0.2 * np.random.default_rng(1).standard_normal(6))[runs]
    one = fit("power", x, y, groups=runs.tolist(), bootstrap=0)
    places = np.unique(x.round(9))
    top = x.round(9) >= places[-math.ceil(len(places) / 4)]
    seen = ~np.isin(runs, runs[top])
    rest = fit("power", x[seen], y[seen], bootstrap=0).params
    off = np.log(rest["A"] * x[top] ** -rest["a"] / y[top])
    assert one.held_out == pytest.approx(float(np.sqrt(np.mean(off**2))), rel=1e-3)


def test_a_plateau_before_the_break_is_a_law_all_the_same():
    x = np.geomspace(1e2, 1e9, 40)
    one = fit("bnsl", x, noisy(4 * (1 + x / 1e4) ** -0.5, 0), bootstrap=50)
    assert not any("the input then does nothing" in note for note in one.warnings)


@pytest.mark.parametrize("decades, verdict", [(1, "improves but no law"), (3, "law")])
def test_a_broken_law_needs_two_decades_beyond_its_break(decades: int, verdict: str):
    x = np.geomspace(1e3, 1e5 * 10**decades, 40)
    one = fit("bnsl", x, noisy(4 * x**-0.1 * (1 + (x / 1e5) ** 5) ** -0.06, 0, 0.002), bootstrap=0)
    assert one.params["d"] == pytest.approx(1e5, rel=0.5) and one.verdict == verdict
    assert any("beyond the break" in note for note in one.warnings) == (verdict != "law")


def test_no_form_is_its_own_rival():
    every = [(form, rivals_of(form, 100)) for form in FORMS.values()]
    for form, others in every:
        for other in map(FORMS.__getitem__, others):
            assert type(other) is not type(form) or other.parameters != form.parameters
    assert rivals_of(FORMS["members"], 100) == ["kaplan"]


def test_an_average_is_of_forms_that_are_fitted_and_leads_with_the_simplest():
    mean = average(compare(X[:2], 4 * X[:2] ** -0.15, bootstrap=0))
    assert [*mean.weights] == ["power"] and math.isfinite(mean.forecast(1e8).value)
    y = noisy(4 * X**-0.15, 0)
    equal = average(compare(X, y, forms=("power_floor", "power"), bootstrap=0))
    even = replace(equal, weights={"power_floor": 0.5, "power": 0.5})
    assert even.best.form == "power"


def test_three_inputs_ask_for_a_form():
    x = np.column_stack([X, X**0.5, X**0.3])
    with pytest.raises(UserError, match="of 3 inputs .* experts"):
        compare(x, X**-0.1, bootstrap=0)
