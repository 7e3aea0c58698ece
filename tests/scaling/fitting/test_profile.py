"""Profile intervals against closed forms, against other searches, and at bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t

from stepsight.scaling.fitting.profile import rise
from stepsight.scaling.fitting.search import Pins, best_start, minimise, problem
from stepsight.scaling.laws.fits import fit
from stepsight.scaling.laws.forms import FORMS

X = np.geomspace(1e4, 1e10, 15)
GRID = np.array([(t, n) for t in 2.0 ** np.arange(7) for n in 2.0 ** np.arange(6)])


def noisy(y: np.ndarray, seed: int, scale: float = 0.01) -> np.ndarray:
    return y * np.exp(scale * np.random.default_rng(seed).standard_normal(len(y)))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_least_squares_of_a_power_law_gives_the_interval_of_a_regression(level: float):
    y = noisy(4 * X**-0.1, 0)
    one = fit("power", X, y, intervals="profile", level=level, huber=math.inf, bootstrap=0)
    (slope, intercept), covariance = np.polyfit(np.log(X), np.log(y), 1, cov=True)
    reach = t.ppf((1 + level) / 2, len(X) - 2) * np.sqrt(np.diag(covariance))
    wanted = (-slope - reach[0], -slope + reach[0])
    assert one.intervals["a"] == pytest.approx(wanted, rel=1e-3)
    ends = np.exp([intercept - reach[1], intercept + reach[1]])
    assert one.intervals["A"] == pytest.approx(tuple(ends), rel=5e-3)
    assert one.method == "profile" and one.resampling == "none"


def test_ends_are_where_the_best_of_the_others_has_risen_so_far():
    """The ends of a surface's intervals against a general search with the parameter fixed."""
    form = FORMS["members"]
    y = noisy(0.15 + 0.3 * GRID[:, 0] ** -1.2 + 0.08 * GRID[:, 1] ** -0.7, 1)
    one = fit("members", GRID, y, intervals="profile", level=0.9, bootstrap=0)
    logs = np.log(np.column_stack([GRID, y]))
    centre = logs.mean(axis=0)
    data = problem(form, logs[:, :2] - centre[:2], logs[:, 2] - centre[2], one.huber)
    allowed = rise(data, best_start(data), 0.9, 1e-6)
    for name, side in (("a", 1), ("E", 0), ("B", 1)):
        i = form.parameters.index(name)
        end = one.intervals[name][side]

        def left_over(rest: np.ndarray, i: int = i, end: float = end) -> float:
            values = np.insert(rest, i, end)
            e, A, a, B, b = values
            r = np.abs(np.log(e + A * GRID[:, 0] ** -a + B * GRID[:, 1] ** -b) - np.log(y))
            inner = np.minimum(r, one.huber)
            return float(np.sum(inner * (r - inner / 2)))

        start = np.delete(np.array(list(one.params.values())), i)
        found = minimize(
            left_over,
            start,
            method="Nelder-Mead",
            options={"maxiter": 20000, "maxfev": 20000, "xatol": 1e-9, "fatol": 1e-12},
        )
        assert found.fun - one.objective == pytest.approx(allowed, rel=0.02)


@pytest.mark.parametrize("name", FORMS)
def test_a_pinned_search_stays_at_the_value(name: str):
    form = FORMS[name]
    rng = np.random.default_rng(2)
    u = rng.uniform(-4, 4, (30, len(form.inputs)))
    v = np.log(0.5 + np.exp(-0.3 * u.sum(axis=1))) + 0.01 * rng.normal(size=30)
    if name == "bnsl":
        v -= 0.5 * np.logaddexp(0, u[:, 0])  # bent, so that every parameter matters
    data, centre = problem(form, u, v, 0.01), rng.normal(size=len(form.inputs) + 1)
    best = best_start(data)
    k = len(form.parameters)
    free = form.natural(best.q, centre)[0]
    wanted = np.where(form.moved_as_logs, free + 0.2, free * 0.98)
    found = minimise(data, np.repeat(best.q, k, axis=0), Pins(np.arange(k), wanted, centre))
    np.testing.assert_allclose(np.diag(form.natural(found.q, centre)), wanted, atol=1e-9)
    assert (found.objective >= best.objective - 1e-9).all()


def test_a_floor_that_may_be_zero_has_an_interval_that_ends_there():
    short = np.geomspace(1e4, 1e7, 12)
    one = fit("power_floor", short, noisy(4 * short**-0.2, 3, 0.02), intervals="profile")
    assert one.intervals["E"][0] == 0 and 0 < one.intervals["E"][1] < 0.16
    known = fit("power_floor", X, noisy(0.12 + 4 * X**-0.25, 3), intervals="profile")
    assert known.intervals["E"][0] > 0.1


def test_what_the_points_do_not_determine_is_unbounded():
    """Members change nothing: the exponent may be anything, the amplitude nothing."""
    y = noisy(0.1 + 0.3 * GRID[:, 0] ** -0.5, 0)
    one = fit("members", GRID, y, intervals="profile")
    assert one.intervals["b"] == (0.0, 10.0) and one.intervals["B"][0] == 0.0
    assert one.intervals["a"][0] > 0.4 and one.verdict == "improves but no law"
    assert any("plateau in members" in warning for warning in one.warnings)


@pytest.mark.parametrize(
    "name, law",
    [
        ("power", lambda x: 2 * x**-0.3),
        ("power_floor", lambda x: 0.1 + 2 * x**-0.3),
        ("power_shifted", lambda x: 0.1 + 2 * (x + 5) ** -0.3),
        ("bnsl", lambda x: 0.1 + 2 * x**-0.1 * (1 + x / 1e3) ** -0.4),
    ],
)
def test_intervals_hold_the_estimate_and_widen_with_noise(name: str, law):
    x, widths = np.geomspace(1, 1e6, 30), []
    for scale in (0.002, 0.01):
        one = fit(name, x, noisy(law(x), 4, scale), intervals="profile", bootstrap=0)
        for key, (lo, hi) in one.intervals.items():
            assert lo <= one.params[key] <= hi
        lo, hi = one.intervals[(*FORMS[name].exponents, "c1")[0]]
        widths.append(hi - lo)
    assert widths[1] > 1.5 * widths[0]


def test_runs_need_a_bootstrap():
    y, runs = noisy(4 * X**-0.1, 0), [i // 3 for i in range(15)]
    warned = fit("power", X, y, intervals="profile", groups=runs).warnings
    assert any("independent" in warning for warning in warned)
    assert fit("power", X, y, groups=runs).warnings == ()
