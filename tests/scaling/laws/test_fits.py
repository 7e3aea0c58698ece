"""Fits recover what generated the points, say how sure they are, and judge curves of each kind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.optimize import least_squares

from stepsight.errors import UserError
from stepsight.scaling.laws.fits import Fit, compare, fit

CURVES = ("power", "power_floor")
X = np.geomspace(1e4, 1e10, 9)
TRUE = {"E": 0.12, "A": 4.0, "a": 0.25}


def curve(x: np.ndarray, A: float, a: float, E: float = 0.0) -> np.ndarray:
    return E + A * x**-a


def noisy(y: np.ndarray, seed: int, scale: float = 0.01) -> np.ndarray:
    return y * np.exp(scale * np.random.default_rng(seed).standard_normal(len(y)))


def test_recovers_a_power_law_with_floor():
    one = fit("power_floor", X, noisy(curve(X, **TRUE), seed=0), bootstrap=0)
    assert one.params["E"] == pytest.approx(0.12, abs=0.006)
    assert one.params["A"] == pytest.approx(4.0, rel=0.1)
    assert one.params["a"] == pytest.approx(0.25, abs=0.012)
    assert one.verdict == "law" and one.warnings == () and one.r2 > 0.999


@pytest.mark.parametrize("name, params", [("power", {"A": 85.8, "a": 0.15}), ("power_floor", TRUE)])
@pytest.mark.parametrize("unit", [1.0, 1e12])
def test_exact_points_give_exact_parameters(name: str, params: dict[str, float], unit: float):
    scaled = params | {"A": params["A"] * unit ** params["a"]}
    one = fit(name, X * unit, curve(X * unit, **scaled), bootstrap=0)
    for key, value in scaled.items():
        assert one.params[key] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(one.predict(X * unit), curve(X, **params), rtol=1e-6)


def test_objective_is_the_sum_of_huber_losses():
    """Against scipy's own robust loss, which states the same problem for another search."""
    y, u = noisy(curve(X, 2.0, 0.2), seed=3, scale=0.03), np.log(X) - np.log(X).mean()
    one = fit("power", X, y, bootstrap=0, huber=1e-2)
    reference = least_squares(
        lambda p: p[0] - p[1] * u - np.log(y),
        (0.0, 0.2),
        loss="huber",
        f_scale=1e-2,
        xtol=1e-14,
        ftol=1e-14,
    )
    assert one.objective <= reference.cost * (1 + 1e-6)
    assert one.objective == pytest.approx(reference.cost, rel=1e-4)
    assert one.params["a"] == pytest.approx(reference.x[1], rel=1e-3)


def test_an_outlier_moves_huber_less_than_least_squares():
    y = curve(X, 2.0, 0.2)
    y[-1] *= 1.5
    robust, squares = (fit("power", X, y, bootstrap=0, huber=h) for h in (1e-2, math.inf))
    assert abs(robust.params["a"] - 0.2) < 0.2 * abs(squares.params["a"] - 0.2)


def test_least_squares_equals_a_straight_line_in_logs():
    y = noisy(curve(X, 2.0, 0.2), seed=1, scale=0.1)
    one = fit("power", X, y, bootstrap=0, huber=math.inf)
    slope, level = np.polyfit(np.log(X), np.log(y), 1)
    assert one.params["a"] == pytest.approx(-slope, rel=1e-7)
    assert one.params["A"] == pytest.approx(math.exp(level), rel=1e-6)
    assert one.r2 == pytest.approx(np.corrcoef(np.log(X), np.log(y))[0, 1] ** 2, rel=1e-6)
    assert sum(one.residuals) == pytest.approx(0, abs=1e-6)


def test_the_floor_lies_within_the_points_of_a_plateau():
    """Not below all of them: noise carries some of them under it."""
    scatter = np.exp(0.02 * np.array([0, 0, 0, 1, -1, 0.5, -0.5, 1.5, -1.5]))
    x = np.geomspace(1, 1e6, 9)
    one = fit("power_floor", x, (0.2 + 0.8 * x**-1.0) * scatter, bootstrap=0, huber=math.inf)
    assert one.params["E"] == pytest.approx(0.2, rel=0.005)
    assert one.params["E"] > 0.2 * scatter.min()


def test_comparison_prefers_the_form_that_made_the_points():
    with_floor = compare(X, noisy(curve(X, **TRUE), seed=2), bootstrap=0)
    without = compare(X, noisy(curve(X, 4.0, 0.1), seed=2), bootstrap=0)
    assert list(with_floor) == ["power_floor", "power"] and list(without)[0] == "power"
    assert with_floor["power"].verdict == "improves but no law"
    assert "power_floor fits far better" in with_floor["power"].warnings[-1]


def test_same_seed_same_fit():
    y = noisy(curve(X, **TRUE), seed=5)
    assert fit("power_floor", X, y, bootstrap=20) == fit("power_floor", X, y, bootstrap=20)
    other = fit("power_floor", X, y, bootstrap=20, seed=1)
    assert other.intervals != fit("power_floor", X, y, bootstrap=20).intervals


def test_runs_are_resampled_whole():
    """Four runs of three checkpoints, each run shifted as a whole: points understate that."""
    rng = np.random.default_rng(0)
    runs = np.repeat(["a", "b", "c", "d", "e", "f"], 3)
    x = np.geomspace(1e4, 1e9, len(runs))
    y = curve(x, 4.0, 0.1) * np.exp(np.repeat(0.1 * rng.standard_normal(6), 3))
    points, whole = fit("power", x, y), fit("power", x, y, groups=runs.tolist())
    assert (points.resampling, whole.resampling) == ("points", "runs")
    widths = [one.intervals["a"][1] - one.intervals["a"][0] for one in (points, whole)]
    assert widths[1] > 1.2 * widths[0]
    assert fit("power", x, y, groups=["one"] * len(x)).resampling == "points"


def coverage(resample: str) -> float:
    covered = 0
    for seed in range(60):
        y = noisy(curve(X, 4.0, 0.1), seed=seed)
        one = fit("power", X, y, bootstrap=60, resample=resample, seed=seed)  # type: ignore[arg-type]
        lo, hi = one.intervals["a"]
        covered += lo <= 0.1 <= hi
    return covered / 60


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["pairs", "residuals"])
def test_intervals_cover_the_truth(resample: str):
    """Nominally 95 %; nine points and sixty resamples leave something of that."""
    assert 0.8 <= coverage(resample) <= 1.0


@pytest.mark.slow
def test_floor_intervals_cover_the_truth():
    covered = np.zeros(2)
    for seed in range(60):
        one = fit("power_floor", X, noisy(curve(X, **TRUE), seed), bootstrap=60, seed=seed)
        covered += [one.intervals[k][0] <= TRUE[k] <= one.intervals[k][1] for k in ("a", "E")]
    assert (covered / 60 >= 0.85).all()


KINDS = {
    "law": curve(X, 4.0, 0.1),
    "saturated": np.array([1.0, 0.6, 0.4, 0.3, 0.25, 0.201, 0.2, 0.2005, 0.2]),
    "not monotone": np.array([1.0, 0.8, 0.6, 0.5, 0.45, 0.5, 0.6, 0.75, 0.9]),
    "improves but no law": np.array([1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.9, 0.5, 0.2]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CURVES)
def test_verdicts(name: str, kind: str):
    assert fit(name, X, KINDS[kind], bootstrap=20).verdict == kind


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("trend", [0.0, 0.2])
def test_noise_and_growth_are_no_improvement(trend: float, seed: int):
    assert fit("power", X, noisy(X**trend, seed), bootstrap=20).verdict == "not monotone"


@pytest.mark.parametrize("name, needed", [("power", 4), ("power_floor", 5)])
def test_too_few_points(name: str, needed: int):
    for n in range(1, needed):
        one = fit(name, X[:n], curve(X[:n], 4.0, 0.1), bootstrap=10)
        assert one.verdict == "too few points" and one.warnings[0].startswith("too few points")
        assert all(math.isnan(lo) for lo, _ in one.intervals.values())
    assert fit(name, X[:needed], curve(X[:needed], **TRUE), bootstrap=10).verdict == "law"


def test_repeated_x_do_not_count_as_points():
    one = fit("power", np.repeat(X[:3], 5), noisy(np.repeat(curve(X[:3], 4.0, 0.1), 5), 0))
    assert one.n == 15 and one.verdict == "too few points"


def warned(one: Fit, word: str) -> bool:
    return any(word in warning for warning in one.warnings)


def test_warnings_say_what_is_wrong():
    narrow = np.geomspace(1e4, 3e5, 9)
    assert warned(fit("power", narrow, curve(narrow, 4.0, 0.1), bootstrap=0), "1.5 decades")
    assert warned(fit("power", X, KINDS["saturated"], bootstrap=0), "plateau")
    assert warned(fit("power_floor", X, curve(X, 4.0, 0.1), bootstrap=0), "E is at its bound 0")
    assert warned(fit("power_floor", X, curve(X, 1.0, 0.005), bootstrap=0), "ill-conditioned")
    assert not fit("power", X, KINDS["law"], bootstrap=0).warnings
    steep = fit("power", [1.0, 2.0, 4.0, 8.0], [1.0, 1e-4, 1e-8, 1e-12], bootstrap=0)
    assert warned(steep, "a is at its bound 10") and steep.verdict == "improves but no law"


def test_a_search_cut_short_says_so(monkeypatch):
    monkeypatch.setattr("stepsight.scaling.fitting.search.MAX_STEPS", 2)
    assert warned(fit("power_floor", X, KINDS["saturated"], bootstrap=0), "not converged")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_points_must_be_positive(bad: float):
    y = curve(X, 4.0, 0.1)
    y[3] = bad
    with pytest.raises(UserError, match="1 of 9 values of y"):
        fit("power", X, y)
    with pytest.raises(UserError, match="1 of 9 values of x"):
        fit("power", y, X)


def test_unknown_form_suggests():
    with pytest.raises(UserError, match="Did you mean 'power_floor'"):
        fit("power_flor", X, X)
    with pytest.raises(UserError, match="no points"):
        fit("power", [], [])


def test_far_extrapolation_warns():
    one = fit("power", X, curve(X, 4.0, 0.1), bootstrap=0)
    one.predict(X[-1] * 29)
    with pytest.warns(UserWarning, match="extrapolating"):
        one.predict(X[-1] * 31)


def test_held_out_is_the_error_at_the_top_of_a_fit_that_does_not_see_it():
    y = noisy(curve(X, 4.0, 0.1), seed=4)
    whole, part = fit("power", X, y, bootstrap=0), fit("power", X[:6], y[:6], bootstrap=0)
    errors = np.log(part.params["A"] * X[6:] ** -part.params["a"] / y[6:])
    assert whole.held_out == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert math.isnan(fit("power_floor", X[:3], y[:3]).held_out)


def test_held_out_tells_forms_apart():
    y = noisy(curve(X, **TRUE), seed=2)
    fits = compare(X, y, forms=("power", "power_floor", "power_shifted"), bootstrap=0)
    assert fits["power_floor"].held_out < 0.3 * fits["power"].held_out
    assert next(iter(fits)) == "power_floor"


def test_a_level_widens_the_intervals():
    y = noisy(curve(X, 4.0, 0.1), seed=5)
    narrow, wide = (fit("power", X, y, level=level).intervals["a"] for level in (0.5, 0.95))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_fits_are_json():
    full = fit("power_floor", X, noisy(curve(X, **TRUE), 0), bootstrap=10).to_dict()
    empty = fit("power_floor", X[:1], X[:1]).to_dict()
    assert json.loads(json.dumps(full, allow_nan=False)) == full
    assert json.loads(json.dumps(empty, allow_nan=False))["params"]["A"] is None
    assert full["x_range"] == [1e4, 1e10] and not {"draws", "natural"} & full.keys()
